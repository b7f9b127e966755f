"""REST: routes made of the declared commands, and what surrounds them."""
