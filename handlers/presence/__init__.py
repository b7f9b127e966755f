"""Who may ask: who is there."""
