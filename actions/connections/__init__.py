"""What can happen: who is connected."""
