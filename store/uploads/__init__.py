"""Where it is kept: files."""
