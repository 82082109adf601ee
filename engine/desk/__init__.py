"""What people may do: for the command line now, for console and API later."""
