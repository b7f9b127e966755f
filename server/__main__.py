"""`python -m server`."""

import sys

OURS = {"actions", "config", "domain", "fanout", "handlers", "server", "store"}

try:
    from server.cli import main
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] in OURS:
        raise
    sys.exit(
        f"parley: {sys.executable} has no {error.name}: `make run` installs what is needed, "
        "then .venv/bin/python -m server"
    )

if __name__ == "__main__":
    sys.exit(main())
