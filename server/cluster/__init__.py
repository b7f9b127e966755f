"""What a node knows of the other nodes of its cluster."""
