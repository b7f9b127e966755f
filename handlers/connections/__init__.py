"""Who may ask: who is connected."""
