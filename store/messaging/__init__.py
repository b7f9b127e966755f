"""Where it is kept: conversations and what is written in them."""
