"""What exists: who there is: people, how they come in, and what they may."""
