"""The storage engine on MongoDB."""

from store.mongo.engine import MongoEngine

__all__ = ["MongoEngine"]
