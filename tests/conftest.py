"""Options and fixtures that all tests share."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import coverage
import hypothesis.internal.observability  # noqa: F401  (see below)
import pytest

from tests.support.mongo_stores import MongoStores
from tests.support.mongod import Mongod, Unbuildable, binary, scratch
from tests.support.nursery import Nursery
from tests.support.plans import explained
from tests.support.rest import Api
from tests.support.server import ServerProcess
from tests.support.turns import turn

# Hypothesis' plugin would import the above at the end of every run, and pytest compiles it then. Up to
# Python 3.11.8 compiling fails now and then if what a test left behind is collected meanwhile
# ("AST constructor recursion depth mismatch", CPython issue 106905).

StartServer = Callable[..., ServerProcess]

_SERVERS = pytest.StashKey[list[ServerProcess]]()
_DIRECTORY = pytest.StashKey[str]()

_TURNS = "turns"
"""Names, in what a worker is told, the directory of the turns."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`: everything in its full size."""
    parser.addoption(
        "--full",
        action="store_true",
        help="run the tests marked `long` too, and the others in their full size",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked `long` out, unless `--full` asks for them; begin with those that are `alone`."""
    # One worker has them all in a row, and the others wait for them where their tests are short.
    items.sort(key=lambda item: "alone" not in item.keywords)
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="long: runs with --full")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[None]:
    """Servers start as forks of one process that has imported them."""
    if coverage.Coverage.current() is not None:  # it measures what is started, not what is forked
        yield
        return
    with Nursery() as nursery:
        ServerProcess.nursery = nursery
        yield
        ServerProcess.nursery = None


@pytest.fixture(autouse=True)
def plans() -> Iterator[None]:
    """Whatever SQLite is asked in this process, an index answers it."""
    with explained():
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker (`pytest -n`) where the workers wait for each other's turns."""
    config: pytest.Config = node.config
    if _DIRECTORY not in config.stash:
        directory = tempfile.TemporaryDirectory(prefix="parley-tests-")
        config.add_cleanup(directory.cleanup)
        config.stash[_DIRECTORY] = directory.name
    node.workerinput[_TURNS] = config.stash[_DIRECTORY]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the timeout too: waiting is not the test's
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no other worker run a test next to one that is marked `alone`."""
    told: dict[str, Any] = getattr(item.config, "workerinput", {})
    if _TURNS not in told:
        return (yield)
    with turn(Path(told[_TURNS]), alone="alone" in item.keywords):
        return (yield)


@pytest.hookimpl(tryfirst=True)  # a worker's own loop asks nobody after it
def pytest_runtestloop(session: pytest.Session) -> None:
    """Build the stand-in for MongoDB before the first test, whose time is limited."""
    if session.config.option.collectonly or not any(map(_needs_stand_in, session.items)):
        return
    with contextlib.suppress(Unbuildable):  # told where it is needed
        binary()


def _needs_stand_in(item: pytest.Item) -> bool:
    asked = set(getattr(item, "fixturenames", ()))
    if os.environ.get("TEST_MONGODB_URL"):
        return "stand_in" in asked
    # A test that runs on every engine asks for its engine's fixture only when it runs.
    return "mongo" in item.nodeid or bool(asked & {"stand_in", "mongodb"})


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


_MISSING = "no MongoDB: "


@pytest.fixture(scope="session")
def stand_in() -> None:
    """The stand-in for MongoDB is built. Where it cannot be, what needs it is skipped; in CI that
    is an error.
    """
    try:
        binary()
    except Unbuildable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{_MISSING}{error}")


@pytest.fixture(scope="session")
def mongodb(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a MongoDB that all tests share, each with databases of its own."""
    url = os.environ.get("TEST_MONGODB_URL")
    if url:
        yield url
        return
    request.getfixturevalue("stand_in")
    with Mongod(tmp_path_factory.mktemp("mongod")) as mongod:
        yield mongod.url


@pytest.fixture
async def mongo(mongodb: str) -> AsyncIterator[MongoStores]:
    """Makes MongoDB engines on a database of this test's own; stops them."""
    with scratch(mongodb) as database:
        stores = MongoStores(database)
        yield stores
        await stores.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is read, what was not tested."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", ()))
    reasons = (each[2].partition(_MISSING)[2] for each in skipped if isinstance(each, tuple))
    if missing := next(filter(None, reasons), None):
        terminalreporter.write_line(
            f"NOT TESTED on MongoDB: {missing}. Install Go, or name a server in TEST_MONGODB_URL.",
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
