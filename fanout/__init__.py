"""How it reaches everyone: hub, bus, presence registry."""
