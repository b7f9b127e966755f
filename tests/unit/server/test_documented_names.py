"""Settings, metrics and log entries that the operator's pages and files name are there."""

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from config.settings import Settings
from tests.support.server import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
FILES = [
    ROOT / "Dockerfile",
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "deploy").rglob("*") if path.suffix in {".yaml", ".cfg"}),
]
SETTINGS = {f"PARLEY_{name.upper()}" for name in Settings.model_fields}
OURS = {"PARLEY_ENV_FILE", "PARLEY_URL", "PARLEY_CORS_ORIGIN"}
"""What looks like a setting: the name of the file, the demo's, a misspelt one."""


def sources(*packages: str) -> str:
    return "\n".join(
        path.read_text() for package in packages for path in sorted((ROOT / package).rglob("*.py"))
    )


@pytest.mark.parametrize("path", [*PAGES, *FILES], ids=lambda path: path.name)
def test_settings(path: Path) -> None:
    named = set(re.findall(r"PARLEY_[A-Z_]+[A-Z]", path.read_text()))
    assert {name.removesuffix("_FILE") for name in named - OURS} <= SETTINGS


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_metrics(path: Path) -> None:
    made = set(re.findall(r'"(parley_\w+)"', sources("server")))
    named = re.findall(r"(?<![\w/.-])(parley_\w+)", path.read_text())
    for name in named:
        base = re.sub(r"_(total|bucket|count|sum)$", "", name)
        assert {name, base} & made, name


def test_log_entries() -> None:
    made = set(re.findall(r'"(\w+)"', sources("server", "fanout", "actions", "store")))
    for line in (ROOT / "docs" / "cluster.md").read_text().splitlines():
        for part in re.findall(r"log (`[^|;]*)", line):
            for name in re.findall(r"`(\w+)`", part):
                assert name in made, name


def test_the_deployments_are_yaml_with_what_each_needs() -> None:
    kinds = {
        each["kind"]: each
        for each in yaml.safe_load_all((ROOT / "deploy/kubernetes/parley.yaml").read_text())
    }
    assert {"Deployment", "Service", "Ingress", "PodDisruptionBudget"} <= kinds.keys()
    pod = kinds["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"] == kinds["Service"]["spec"]["selector"]
    assert container["ports"][0]["name"] == kinds["Service"]["spec"]["ports"][0]["targetPort"]
    grace = float(kinds["ConfigMap"]["data"]["PARLEY_SHUTDOWN_GRACE"].rstrip("s"))
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace + pause
    for name in ("compose.yaml", "compose.single.yaml"):
        for service in yaml.safe_load((ROOT / "deploy" / name).read_text())["services"].values():
            assert {"image", "build"} & service.keys()
