"""What exists: conversations and what is written in them."""
