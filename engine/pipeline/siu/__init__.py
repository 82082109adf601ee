"""Messages of scheduling systems (SIU): appointments."""
