"""What tests stand on: a real server process, clients, and a REST helper."""
