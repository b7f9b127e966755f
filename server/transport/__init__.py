"""Socket.IO: protocol, sessions, the fast path of frames."""
