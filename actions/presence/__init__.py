"""What can happen: who is there."""
