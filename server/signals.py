"""What the process does when it gets a signal: stop in order, or say that it heard."""

import asyncio
import signal
from collections.abc import Callable, Iterable

import structlog

log = structlog.get_logger(__name__)

STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGPWR")
PASSED_OVER = (
    *("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGXCPU", "SIGSTKFLT"),
    *("SIGRTMIN", "SIGRTMAX"),
)
"""They mean nothing to a server, and would end it untold. Those that a fault of the process itself raises
are left alone. Not every system has all of them.
"""


def heed(stop: Callable[[], object]) -> None:
    """Call `stop` for each signal that asks the process to end; needs a running loop. A SIGHUP
    that is ignored already stays so: that is how `nohup` works.
    """
    loop = asyncio.get_running_loop()
    for number in _there(STOPPING):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, _stop, number, stop)
    for number in _there(PASSED_OVER):
        loop.add_signal_handler(number, _pass_over, number)


def _there(names: Iterable[str]) -> list[signal.Signals]:
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


def _stop(number: signal.Signals, stop: Callable[[], object]) -> None:
    log.info("signal", signal=number.name, effect="stop")
    stop()


def _pass_over(number: signal.Signals) -> None:
    log.warning("signal", signal=number.name, effect="none")
