"""Medicines before and after a stay: what each name and direction says, and how two lists differ. Pure."""
