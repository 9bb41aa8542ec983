"""The pages that are written by programs are those that the programs write now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", ["settings", "metrics"])
def test_a_written_page_is_in_step(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"{name}_page", DOCS / f"{name}_page.py")
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (DOCS / f"{name}.md").read_text() == page.render(), "run `make docs`"
