"""Who may ask: files."""
