"""Handoff: an HL7 v2 MLLP interface engine for the way from hospital to home."""

__version__ = "0.1.0"
