"""What can happen: files."""
