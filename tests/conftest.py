"""Options and fixtures that all tests share."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`: everything in its full size."""
    parser.addoption(
        "--full",
        action="store_true",
        help="run the tests marked `long` too, and the others in their full size",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked `long` out, unless `--full` asks for them."""
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="long: runs with --full")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full size was asked for: more rounds, more clients."""
    return bool(request.config.getoption("--full"))
