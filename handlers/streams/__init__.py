"""Who may ask: following what happens, in order."""
