"""Options and fixtures that all tests share."""

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.mongo_stores import MongoStores
from tests.support.mongod import Mongod, Unbuildable, binary, scratch
from tests.support.rest import Api
from tests.support.server import ServerProcess

StartServer = Callable[..., ServerProcess]

_SERVERS = pytest.StashKey[list[ServerProcess]]()
_MISSING = pytest.StashKey[list[str]]()


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


def pytest_runtestloop(session: pytest.Session) -> None:
    """Build the stand-in for MongoDB before the first test, whose time is limited."""
    wanted = any("mongo" in item.nodeid for item in session.items)
    if not wanted or session.config.option.collectonly or os.environ.get("TEST_MONGODB_URL"):
        return
    with contextlib.suppress(Unbuildable):  # told where it is needed
        binary()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the servers' logs with a failure."""
    report = yield
    if report.failed:
        for server in item.config.stash.get(_SERVERS, []):
            report.sections.append((f"server at {server.url}", server.log_tail()))
    return report


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full size was asked for: more rounds, more clients."""
    return bool(request.config.getoption("--full"))


def _starter(config: pytest.Config, directory: Callable[[], Path], stack: ExitStack) -> StartServer:
    running = config.stash.setdefault(_SERVERS, [])

    def start(**settings: object) -> ServerProcess:
        server = ServerProcess(directory(), settings)
        running.append(server)
        stack.callback(running.remove, server)
        return stack.enter_context(server)

    return start


@pytest.fixture(scope="session")
def mongodb(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a MongoDB that all tests share, each with databases of its own."""
    url = os.environ.get("TEST_MONGODB_URL")
    if url:
        yield url
        return
    require_mongod(request.config)
    with Mongod(tmp_path_factory.mktemp("mongod")) as mongod:
        yield mongod.url


@pytest.fixture
async def mongo(mongodb: str) -> AsyncIterator[MongoStores]:
    """Makes MongoDB engines on a database of this test's own; stops them."""
    with scratch(mongodb) as database:
        stores = MongoStores(database)
        yield stores
        await stores.close()


def require_mongod(config: pytest.Config) -> None:
    """Skip what needs the stand-in for MongoDB where it cannot be built; in CI that is an error."""
    try:
        binary()
    except Unbuildable as error:
        if os.environ.get("CI") == "true":
            raise
        config.stash.setdefault(_MISSING, []).append(str(error))
        pytest.skip(f"no MongoDB: {error}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say at the end, where it is read, what was not tested."""
    missing = config.stash.get(_MISSING, [])
    if missing:
        terminalreporter.write_line(
            f"NOT TESTED on MongoDB: {missing[0]}. Install Go, or name a server in "
            "TEST_MONGODB_URL.",
            red=True,
            bold=True,
        )


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A running server that all tests share: leave it as you would wish to find it."""
    with ExitStack() as stack:
        yield _starter(request.config, lambda: tmp_path_factory.mktemp("server"), stack)()


@pytest.fixture
def start_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of this test's own: `start_server(ACCESS_TTL="5s")`; stopped after it."""
    names = (tmp_path / f"server-{number}" for number in itertools.count(1))
    with ExitStack() as stack:
        yield _starter(request.config, lambda: next(names), stack)


@pytest.fixture
def fresh_server(start_server: StartServer) -> ServerProcess:
    """A running server of this test's own, without data: to be killed, filled, restarted."""
    return start_server()


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[Api]:
    """REST of the shared server, as nobody; `await api.register("Ann")` makes a user."""
    async with Api(server.url) as api:
        yield api
