"""The table of attacks in docs/sandbox.md: each of its tests is there, and asserts the code of its row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from offchainvm.errors import BuildCode

ROOT = Path(__file__).parents[3]
ROWS = re.findall(
    r"^\| (.+) \| .+ \| (`\w+`|-) \| `(test_\w+)(?:\[([\w-]+)\])?` \|$", (ROOT / "docs" / "sandbox.md").read_text(), re.MULTILINE
)


def written_tests() -> Iterator[tuple[str, tuple[str, str]]]:
    """Each test of the compiler: the table of its cases, and its own text."""
    for path in (ROOT / "tests").rglob("compiler/**/test_*.py"):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                yield node.name, ("\n".join(map(ast.unparse, node.decorator_list)), "\n".join(map(ast.unparse, node.body)))


TESTS = dict(written_tests())


@pytest.mark.parametrize(("attack", "code", "test", "case"), ROWS, ids=[f"{row[2]}[{row[3]}]" for row in ROWS])
def test_every_row_names_a_test_that_asserts_its_code(attack: str, code: str, test: str, case: str) -> None:
    table, body = TESTS[test]
    if case:
        [table] = [each for each in table.split("pytest.param(") if f"id='{case}'" in each]
    assert code == "-" or code.strip("`") in f"{table} {body}", attack
    assert code == "-" or code.strip("`") in {each.value for each in BuildCode}


def test_the_table_is_read_at_all() -> None:
    assert len(ROWS) > 40
