"""Journeys of patients who are written to, through the real daemon under a test clock, and what they warrant."""
