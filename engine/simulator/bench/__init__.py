"""The benchmark of this machine: the daemon beside what it is made of."""
