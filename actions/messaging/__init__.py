"""What can happen: conversations and what is written in them."""
