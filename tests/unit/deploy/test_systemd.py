"""The service file for systemd: it can be read, and leaves the server little to misuse."""

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support.server import ROOT

UNIT = ROOT / "deploy" / "systemd" / "parley.service"


@pytest.fixture
def service() -> dict[str, str]:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_it_may_write_its_own_directory_alone_and_gain_nothing(service: dict[str, str]) -> None:
    wanted = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "ProtectKernelModules": "yes",
        "ProtectKernelTunables": "yes",
        "RestrictNamespaces": "yes",
        "MemoryDenyWriteExecute": "yes",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
    }
    assert {name: service.get(name) for name in wanted} == wanted


def test_it_has_time_to_drain_and_files_for_its_sockets(service: dict[str, str]) -> None:
    fields = Settings.model_fields
    assert int(service["TimeoutStopSec"]) > fields["shutdown_grace"].default
    assert int(service["LimitNOFILE"]) > fields["max_connections"].default
    assert service["RestartPreventExitStatus"] == "2"


def test_systemd_reads_it_and_judges_it_safe(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / UNIT.name  # with a program that is there
    copy.write_text(
        UNIT.read_text().replace("ExecStart=/opt/parley/.venv/bin/python", "ExecStart=/bin/sh")
    )
    verified = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert UNIT.name not in verified.stderr, verified.stderr
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    if level is None:
        pytest.skip("this systemd-analyze judges no files")
    assert float(level[1]) < 2
