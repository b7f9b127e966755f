"""The process: transport, HTTP, health, metrics, documentation, composition root."""
