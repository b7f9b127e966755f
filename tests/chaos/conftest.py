"""What several files of attacks share."""

from collections.abc import Iterator

import pytest

from tests.chaos.hostile import Target, target_in


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server to attack."""
    with target_in(tmp_path_factory.mktemp("hostile")) as target:
        yield target
