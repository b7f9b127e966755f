"""Socket.IO over aiohttp: sessions, frames, queues. It knows nothing of what is sent."""
