"""What the README and the pages in docs/ name is there: commands, targets, files, settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from offchainvm.cli import COMMANDS
from offchainvm.cli.checks import CHECKS
from offchainvm.settings import setting_table

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md", ROOT / "deploy" / "builder" / "README.md"]
)
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Variables of other programs, and of this one's own tools.
OTHER_VARIABLES = {
    "PROMETHEUS_IMAGE",
    "GRAFANA_IMAGE",
    "PYTEST_ARGS",
    "WORKER_OPTIONS",
    "BASE_IMAGE",
    "WORKER_IMAGE",
    "REDIS_IMAGE",
    "ENV_FILE",
    "API_TOKEN_FILE",
    "OPERATOR_KEY_FILE",
    "OPERATOR_KEYS_FILE",
    "NEARDATA_KEY_FILE",
    "CA_FILE",
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    *(f"{service}_COUNT" for service in ("REDIS", "BRIDGE", "COMPILE", "EXECUTE", "RESOLVE", "MONITOR", "FLOWER")),
    "DOCKER_GROUP",
    "WEB_ADDRESS",
    "FLOWER_ADDRESS",
    "PROMETHEUS_ADDRESS",
    "GRAFANA_ADDRESS",
    "SOURCE_MIRROR_DIR",
}


def code_of(page: Path) -> str:
    """Everything that stands in a code span or block."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL))


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_links_lead_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_targets_of_make_exist(page: Path) -> None:
    named = {word for words in re.findall(r"\bmake((?: [a-z][a-z-]*)+)", code_of(page)) for word in words.split()}
    assert named <= TARGETS


def test_commands_exist(page: Path) -> None:
    assert set(re.findall(r"(?<!-A )\boffchainvm ([a-z]+)", code_of(page))) <= set(COMMANDS)


def test_queues_exist(page: Path) -> None:
    assert set(re.findall(r"-Q (\w+)", code_of(page))) <= {"compile", "execute", "resolve", "QUEUE"}


def test_settings_exist(page: Path) -> None:
    names = {row.name for row in setting_table()}
    named = {
        name for name in re.findall(r"\b([A-Z][A-Z]+(?:_[A-Z]+)+)\b", code_of(page)) if not name.startswith(("NEAR_REQUEST", "NEAR_MAX"))
    }
    unknown = {name.removesuffix("_FILE") for name in named} - names - {name.removesuffix("_FILE") for name in OTHER_VARIABLES}
    assert unknown <= {"NAME", "OFFCHAINVM_ENV", "NEAR_CONTRACT_ID", "NEAR_NETWORK_ID"}


def test_troubleshooting_leads_to_every_row_of_doctor_and_to_no_other() -> None:
    lines = (ROOT / "docs" / "troubleshoot.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    rows = [cell[1] for cell in cells if len(cell) == 4 and cell[1] not in ("", "row of doctor")]
    assert all("`" in row for row in rows)
    assert {name for row in rows for name in re.findall("`([^`]+)`", row)} == {"settings", *(name for _, name, _ in CHECKS)}
