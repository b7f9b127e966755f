"""Secrets that are read from files: `PARLEY_SECRET_KEY_FILE=/run/secrets/parley_key`.

What is in the environment can be read in `docker inspect`, in a crash report and by every child; a
file has an owner and a mode. So every setting that holds a secret may be named by its file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

SUFFIX = "_FILE"


def read_secrets(
    variables: Iterable[str], *sources: Mapping[str, str | None]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The values of those variables that a file is named for.

    Args:
        variables: those that may be read from files.
        sources: the environment, and what goes after it.

    Returns:
        Values by variable without the line end that editors leave, and what is wrong, by variable.
    """
    values: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for variable in variables:
        name = variable + SUFFIX
        file = _first(name, sources)
        if file is None:
            continue
        if _first(variable, sources) is not None:
            problems.append((name, f"and {variable} are both set: one of them"))
            continue
        try:
            value = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            problems.append((name, f"names {file}: {error.strerror}"))
        except UnicodeDecodeError:
            problems.append((name, f"names {file}, which is no UTF-8 text"))
        else:
            if value:
                values[variable] = value
            else:
                problems.append((name, f"names {file}, which is empty"))
    return values, problems


def _first(name: str, sources: Iterable[Mapping[str, str | None]]) -> str | None:
    """What the first source says that says anything; an empty value says nothing."""
    return next((found for source in sources if (found := source.get(name))), None)
