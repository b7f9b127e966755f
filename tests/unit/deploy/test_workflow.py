"""The workflow runs what everyone runs, on each supported Python."""

import tomllib

import yaml  # type: ignore[import-untyped]

from tests.support.server import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def test_it_runs_all_checks_on_each_supported_python() -> None:
    job = WORKFLOW["jobs"]["run"]
    versions = job["strategy"]["matrix"]["python"]
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={versions[0]}" == lowest
    assert versions == [f"3.{minor}" for minor in range(11, 11 + len(versions))]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert WORKFLOW["permissions"] == {"contents": "read"}
