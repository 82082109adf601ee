"""Messages of pharmacies (RDE, RDS): prescriptions of a patient, and what was given out."""
