"""Where it is kept: who is there."""
