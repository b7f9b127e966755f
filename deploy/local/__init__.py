"""The programs of a cluster on this machine, each with its data, that can be killed."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
