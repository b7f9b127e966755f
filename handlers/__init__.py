"""Who may ask: the commands of each namespace, with their REST routes."""
