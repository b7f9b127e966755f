"""The command line: serve, back up, restore, new-epoch, reset-link."""

import argparse
import asyncio
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from config.load import SettingsError, load
from config.settings import Settings
from domain.errors import ParleyError
from server.app import NotStarted, serve
from server.logs import configure
from server.maintenance import backup, new_epoch, reset_link, restore
from server.version import VERSION
from server.workers.supervisor import supervise
from server.workers.worker import Seat

EXIT_FAILED = 1
EXIT_SETTINGS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage or settings.
    """
    parsed = _parser().parse_args(arguments)
    try:
        settings, warnings = load()
    except SettingsError as error:
        print(f"parley: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    if parsed.command != "worker":
        for warning in warnings:
            print(f"parley: {warning}", file=sys.stderr)
    configure(level=settings.log_level.value, json=settings.json_logs)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_command(parsed, settings))
    except SettingsError as error:
        print(f"parley: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    except NotStarted as error:
        print(f"parley: {error}", file=sys.stderr)
        return EXIT_SETTINGS if error.settings else EXIT_FAILED
    except (ParleyError, OSError) as error:
        print(f"parley: {error}", file=sys.stderr)
        return EXIT_FAILED


async def _command(parsed: argparse.Namespace, settings: Settings) -> int:
    match parsed.command:
        case "backup":
            done = await backup(settings, parsed.file, database_only=parsed.database_only)
            print(f"Backed up to {parsed.file}: {done}.")
        case "restore":
            done = await restore(settings, parsed.file)
            print(f"Restored from {parsed.file}: {done}. Clients will fetch their state anew.")
        case "new-epoch":
            await new_epoch(settings)
            print("Every stream has a new epoch. Clients will fetch their state anew.")
        case "reset-link":
            made = await reset_link(settings, parsed.email)
            print(
                f"For {parsed.email}, once, until {made['expires_at']}: POST /api/v1/auth/reset with "
                f'{{"token": "{made["token"]}", "password": "…"}}'
            )
        case "worker":
            structlog.contextvars.bind_contextvars(worker=parsed.number)
            with socket.socket(fileno=parsed.supervisor) as supervisor:
                seat = Seat(parsed.number, parsed.of, parsed.directory, supervisor)
                await serve(settings.model_copy(update={"port": parsed.port}), seat)
        case _ if settings.workers > 1:
            return await supervise(settings)
        case _:
            await serve(settings)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Parley, a self-hosted real-time messaging server. Settings are environment "
        "variables PARLEY_*: see docs/configuration.md.",
    )
    parser.add_argument("--version", action="version", version=f"Parley {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("serve", help="run the server (the default)")
    take = commands.add_parser(
        "backup", help="copy the database and the uploads (SQLite), also while the server runs"
    )
    take.add_argument("file", type=Path, help="where to, a tar archive; must not exist yet")
    take.add_argument(
        "--database-only", action="store_true", help="copy to a SQLite file, without the uploads"
    )
    put = commands.add_parser("restore", help="put a backup in the place of what there is (SQLite)")
    put.add_argument("file", type=Path, help="a file made by backup")
    commands.add_parser(
        "new-epoch",
        help="after a store was put back by other means than restore: have clients notice",
    )
    link = commands.add_parser(
        "reset-link", help="a new password for somebody whom no administrator can help"
    )
    link.add_argument("email", help="the account's address")
    worker = commands.add_parser("worker")  # without help: started by the supervisor alone
    worker.add_argument("number", type=int)
    worker.add_argument("of", type=int)
    worker.add_argument("--port", type=int, required=True)
    worker.add_argument("--directory", type=Path, required=True)
    worker.add_argument("--supervisor", type=int, required=True, help="a descriptor")
    return parser
