"""How long a supervisor waits for a process that was asked to stop: longer than the longest thing it may have in hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from offchainvm.settings import Settings

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deploy" / "systemd"
DEFAULTS = Settings()
GRACE_SECONDS = {
    "bridge": DEFAULTS.poll_timeout_seconds + 15,
    "compile": DEFAULTS.compile_timeout_seconds + 40,
    "execute": DEFAULTS.max_execution_seconds + 40,
    "resolve": 40,
}


@pytest.mark.parametrize(("name", "seconds"), GRACE_SECONDS.items())
def test_docker_compose_waits_for_what_is_in_hand(name: str, seconds: int) -> None:
    service = (ROOT / "docker-compose.yml").read_text().partition(f"\n  {name}:\n")[2]
    assert re.search(r"stop_grace_period: (\d+)s", service).group(1) == str(seconds)  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "seconds"), GRACE_SECONDS.items())
def test_systemd_waits_for_what_is_in_hand(name: str, seconds: int) -> None:
    unit = UNITS / f"offchainvm-{name}.service"
    [file] = [unit] if unit.exists() else (UNITS / f"offchainvm-worker@{name}.service.d").glob("*.conf")
    assert re.findall(r"^TimeoutStopSec=(\d+)$", file.read_text(), re.MULTILINE) == [str(seconds)]
