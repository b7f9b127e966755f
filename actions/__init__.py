"""What can happen: check, write, publish."""
