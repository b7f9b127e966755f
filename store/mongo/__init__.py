"""The storage engine, and a place for blobs, on MongoDB."""

from store.mongo.blobs import MongoBlobs
from store.mongo.copies import new_epoch
from store.mongo.engine import MongoEngine

__all__ = ["MongoBlobs", "MongoEngine", "new_epoch"]
