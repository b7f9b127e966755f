"""The redis-server of the tests, and what they ask of it."""

import os
import shutil

import pytest

from deploy.local.redis import PROGRAM, RedisProcess

__all__ = ["BEFORE_SEVEN", "RedisProcess", "require_redis"]

BEFORE_SEVEN = (
    "--rename-command",
    "SPUBLISH",
    "",
    "--rename-command",
    "SSUBSCRIBE",
    "",
)
"""Makes a server look like one that has no sharded pub/sub yet."""


def require_redis() -> None:
    """Skip the test, loudly, where no redis-server is installed; fail it in the build."""
    if shutil.which(PROGRAM) is None:
        reason = f"{PROGRAM} is not installed: nothing of the cluster is tested"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
