"""What operators can see of a node."""
