"""Where it is kept: nodes that work together."""
