"""Everything that speaks to Redis: the bus, rate limits, and presence of many nodes."""
