"""Messages of laboratories and departments (ORU): results that a task waits for."""
