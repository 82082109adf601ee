"""What people and services see over HTTP, in a process of its own: log-in, sessions, the API."""
