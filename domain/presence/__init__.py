"""What exists: who is there."""
