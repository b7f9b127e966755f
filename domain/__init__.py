"""What exists: models, events, errors, permissions. No I/O."""
