"""Which of our modules import which, as it is written: also what only the type checker imports."""

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from deploy.local import ROOT

SHIPPED = ("config", "domain", "store", "fanout", "actions", "handlers", "server", "deploy")
"""What runs where no test does."""

PACKAGES = (*SHIPPED, "bench", "tests")


def imports(root: Path = ROOT, packages: Collection[str] = PACKAGES) -> dict[str, set[str]]:
    """By module of these packages, the modules of theirs that it imports."""
    files = {name: path for package in packages for name, path in _modules(root, root / package)}
    return {
        name: {each for each in _named(path, files) if each != name} for name, path in files.items()
    }


def _modules(root: Path, directory: Path) -> Iterator[tuple[str, Path]]:
    for path in directory.rglob("*.py"):
        relative = path.relative_to(root)
        if "node_modules" not in relative.parts:
            parts = relative.with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _named(path: Path, ours: Collection[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in ours)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: a relative import"
            for each in node.names:
                name = f"{node.module}.{each.name}"
                if name in ours or node.module in ours:
                    yield name if name in ours else node.module


def circle(graph: Mapping[str, Collection[str]]) -> Sequence[str]:
    """Modules that import one another, each the one before it; empty: there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: Sequence[str] = error.args[1]
        return found
    return ()
