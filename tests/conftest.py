"""How the tests are shared out when several processes run them (`pytest -n`)."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# These tests share one costly set-up, or would take the processors from each other while a deadline runs.
TOGETHER = ("acceptance", "integration/cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file stay together, since they share fixtures; so do those of some folders."""
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        group = next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)
        item.add_marker(pytest.mark.xdist_group(group))
