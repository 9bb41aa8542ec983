"""The table of attacks in docs/sandbox.md: each of its tests is there, and each of its codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from offchainvm.errors import BuildCode

ROOT = Path(__file__).parents[3]
ROWS = re.findall(
    r"^\| (.+) \| .+ \| (`\w+`|-) \| `(test_\w+)(?:\[([\w-]+)\])?` \|$", (ROOT / "docs" / "sandbox.md").read_text(), re.MULTILINE
)
SOURCES = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("compiler/**/test_*.py"))


@pytest.mark.parametrize(("attack", "code", "test", "case"), ROWS, ids=[f"{row[2]}[{row[3]}]" for row in ROWS])
def test_every_row_names_a_test_and_a_code_that_exist(attack: str, code: str, test: str, case: str) -> None:
    body = SOURCES.partition(f"def {test}(")
    assert body[1], f"no such test for {attack}"
    assert not case or f'id="{case}"' in body[0].rpartition("@pytest.mark.parametrize")[2]
    assert code == "-" or code.strip("`") in {each.value for each in BuildCode}


def test_the_table_is_read_at_all() -> None:
    assert len(ROWS) > 40
