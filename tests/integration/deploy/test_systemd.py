"""The units in deploy/systemd: systemd itself finds them right, and as confined as docs/deploy.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deploy" / "systemd"
INSTALLED = "/opt/offchainvm/.venv/bin"
WORKERS = ("offchainvm-worker@compile", "offchainvm-worker@execute", "offchainvm-worker@resolve")
NAMES = ("offchainvm-bridge", "offchainvm-monitor", *WORKERS, "offchainvm-web")
KEY, TOKEN, SOCKET = "operator_private_key", "api_auth_token", "SupplementaryGroups=docker"


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as installed here: the programs that they start are those of this interpreter."""
    if shutil.which("systemd-analyze") is None and not os.environ.get("CI"):
        pytest.skip("no systemd-analyze on this machine")
    folder = tmp_path_factory.mktemp("systemd") / "units"
    shutil.copytree(UNITS, folder)
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace(INSTALLED, str(Path(sys.executable).parent)))
    return folder


def analyze(units: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_COLORS": "0"}
    return subprocess.run(["systemd-analyze", *words], env=environment, capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    found = analyze(units, "verify", "offchainvm.target", *(f"{name}.service" for name in NAMES))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_systemd_takes_what_the_page_says_of_a_token_for_the_status_page(units: Path) -> None:
    [given] = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    (units / "offchainvm-web.service.d").mkdir()
    (units / "offchainvm-web.service.d" / "override.conf").write_text(given)
    found = analyze(units, "verify", "offchainvm-web.service")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_each_unit_is_as_confined_as_the_page_says(units: Path, name: str) -> None:
    told = analyze(units, "security", "--offline=yes", "--no-pager", f"{name}.service").stdout
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert score is not None, told
    assert f"| `{name}` | {score[1]} |" in (ROOT / "docs" / "deploy.md").read_text()


@pytest.mark.parametrize(
    ("name", "held"),
    [(NAMES[0], {TOKEN}), (NAMES[1], {TOKEN}), (NAMES[2], {TOKEN, SOCKET}), (NAMES[3], {TOKEN}), (NAMES[4], {KEY}), (NAMES[5], set())],
)
def test_each_unit_holds_the_secrets_and_rights_of_its_role_alone(name: str, held: set[str]) -> None:
    template = re.sub(r"@\w+", "@", name)
    files = [
        UNITS / f"{template}.service",
        *(UNITS / f"{name}.service.d").glob("*.conf"),
        *(UNITS / "offchainvm-.service.d").glob("*.conf"),
    ]
    text = "\n".join(file.read_text() for file in files)
    assert {word for word in (KEY, TOKEN, SOCKET) if word in text} == held
