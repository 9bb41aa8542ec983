"""The page about the local chain tells of every switch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from offchainvm.devnet.chain import ChainFaults
from offchainvm.devnet.faults import KINDS

PAGE = (Path(__file__).parents[3] / "docs" / "local-chain.md").read_text()


@pytest.mark.parametrize("name", [*KINDS, *(field.name for field in fields(ChainFaults))])
def test_every_fault_is_on_its_page(name: str) -> None:
    assert f"`{name}`" in PAGE
