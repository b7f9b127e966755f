"""The harness itself: a server that ends or hangs fails with what it said."""

import pytest

from tests.conftest import StartServer
from tests.support.server import ServerFailed, ServerProcess


def test_a_server_that_does_not_start_shows_its_log(start_server: StartServer) -> None:
    with pytest.raises(ServerFailed, match="PARLEY_LOG_LEVEL must be one of"):
        start_server(LOG_LEVEL="loud")


def test_stop_kill_and_restart(fresh_server: ServerProcess) -> None:
    first, port = fresh_server.pid, fresh_server.port
    assert fresh_server.stop() == 0
    assert not fresh_server.ready()
    fresh_server.start()
    assert fresh_server.pid != first
    assert fresh_server.port == port
    fresh_server.restart(kill=True)
    assert fresh_server.ready()
