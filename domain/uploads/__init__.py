"""What exists: files."""
