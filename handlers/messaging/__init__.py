"""Who may ask: conversations and what is written in them."""
