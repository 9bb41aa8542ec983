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
PAGE = (ROOT / "docs" / "deploy.md").read_text()
INSTALLED = "/opt/offchainvm/.venv/bin"
WORKERS = ("offchainvm-worker@compile", "offchainvm-worker@execute", "offchainvm-worker@resolve")
NAMES = ("offchainvm-bridge", "offchainvm-monitor", *WORKERS, "offchainvm-web")
SECRETS = ("api_auth_token", "neardata_api_key", "operator_private_key", "operator_private_keys")
TOKEN, BLOCKS, KEY, KEYS = SECRETS
SOCKET = "SupplementaryGroups=docker"


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


def text_of(name: str) -> str:
    """Everything that systemd reads of one unit."""
    template = re.sub(r"@\w+", "@", name)
    folders = (UNITS / "offchainvm-.service.d", UNITS / f"{name}.service.d")
    files = [UNITS / f"{template}.service", *(file for folder in folders for file in folder.glob("*.conf"))]
    return "\n".join(file.read_text() for file in files)


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    found = analyze(units, "verify", "offchainvm.target", *(f"{name}.service" for name in NAMES))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_systemd_takes_what_the_page_says_of_a_token_for_the_status_page(units: Path) -> None:
    [given] = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    (units / "offchainvm-web.service.d").mkdir()
    (units / "offchainvm-web.service.d" / "override.conf").write_text(given)
    found = analyze(units, "verify", "offchainvm-web.service")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_each_unit_is_as_confined_as_the_page_says(units: Path, name: str) -> None:
    told = analyze(units, "security", "--offline=yes", "--no-pager", f"{name}.service").stdout
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert score is not None, told
    assert f"| `{name}` | {score[1]} |" in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_each_unit_has_a_port_of_its_own_which_is_that_of_the_page(name: str) -> None:
    ports = re.findall(r"^Environment=METRICS_PORT=(\d+)$", text_of(name), re.MULTILINE)
    [row] = re.findall(rf"^\| `{re.escape(name)}` \|.*\| (\d+) \|$", PAGE, re.MULTILINE)
    assert ports == [row]
    assert PAGE.count(f"| {row} |") == 1


def test_no_secret_of_the_shared_file_reaches_a_unit_not_even_a_placeholder() -> None:
    [dropped] = re.findall(r"^UnsetEnvironment=(.*)$", text_of("offchainvm-bridge"), re.MULTILINE)
    assert set(dropped.split()) == {*(secret.upper() for secret in SECRETS), "WEB_TOKEN"}


def test_only_the_unit_that_builds_sees_all_of_proc() -> None:
    """Its reaper reads the boot's id there, and whether another process lives."""
    assert {name for name in NAMES if "ProcSubset=all\nProtectProc=default\n" in text_of(name)} == {"offchainvm-worker@compile"}


@pytest.mark.parametrize(
    ("name", "held"),
    [
        (NAMES[0], {TOKEN, BLOCKS}),
        (NAMES[1], {TOKEN, BLOCKS}),
        (NAMES[2], {TOKEN}),
        (NAMES[3], {TOKEN, BLOCKS}),
        (NAMES[4], {KEY, KEYS}),
        (NAMES[5], set()),
    ],
)
def test_each_unit_holds_the_secrets_and_rights_of_its_role_alone(name: str, held: set[str]) -> None:
    text = text_of(name)
    assert set(re.findall(r"^LoadCredential=(\w+):/etc/offchainvm/\1$", text, re.MULTILINE)) == held
    assert set(re.findall(r"^Environment=\w+_FILE=%d/(\w+)$", text, re.MULTILINE)) == held
    # What need not be there has an empty line in its stead: without one systemd would not start the unit.
    assert set(re.findall(r"^SetCredential=(\w+):\\n$", text, re.MULTILINE)) == held & {BLOCKS, KEYS}
    assert (SOCKET in text) == (name == "offchainvm-worker@compile")
