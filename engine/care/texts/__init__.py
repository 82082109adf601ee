"""Texts to patients: what they say, when they may go, and who wants them. Pure."""
