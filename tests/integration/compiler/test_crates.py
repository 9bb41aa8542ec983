"""Crates over HTTP: what a registry does to the worker's time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirror import ANSWER, Mirror

from offchainvm.cancellation import Cancellation
from offchainvm.compiler import crates
from offchainvm.compiler.crates import Allowance, CrateCache, Registry
from offchainvm.compiler.lockfile import Crate
from offchainvm.errors import BuildError, Cancelled

MANY = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mirror]:
    with Mirror("127.0.0.1", tmp_path) as made:
        yield made


@pytest.fixture
def registry(server: Mirror, tmp_path: Path) -> Registry:
    return Registry(server.index_url, cache=CrateCache(tmp_path / "crates", max_bytes=2**20))


@pytest.fixture
def wanted(server: Mirror) -> list[Crate]:
    return [Crate("answer", f"1.0.{number}", server.publish("answer", f"1.0.{number}", f"{ANSWER}// {number}")) for number in range(MANY)]


def allowance(seconds: float, cancellation: Cancellation | None = None) -> Allowance:
    return Allowance(2**20, time.monotonic() + seconds, cancellation or Cancellation())


def test_many_crates_come_in_their_order_and_the_registry_is_asked_once_where_they_are(
    registry: Registry, server: Mirror, wanted: list[Crate]
) -> None:
    fetched = list(registry.fetch(wanted, allowance(60)))

    assert [crate for crate, _ in fetched] == wanted
    assert all(hashlib.sha256(data).hexdigest() == crate.sha256 for crate, data in fetched)
    assert server.requests.count("/index/config.json") == 1


@pytest.mark.parametrize("hangs", [pytest.param("/index/", id="index"), pytest.param("/crates/", id="crates")])
def test_a_registry_that_hangs_is_waited_for_until_the_deadline(
    registry: Registry, server: Mirror, wanted: list[Crate], hangs: str
) -> None:
    server.faults = {hangs: "hang"}

    with pytest.raises(BuildError) as caught:
        list(registry.fetch(wanted, allowance(1)))

    assert caught.value.code == "timeout"
    assert "fetching crates" in caught.value.sentence
    assert server.requests.count("/index/config.json") == 1


def test_a_fetch_that_nobody_wants_any_more_ends_in_the_middle_of_a_file(registry: Registry, server: Mirror, wanted: list[Crate]) -> None:
    server.faults = {"/crates/": "drip"}
    cancellation = Cancellation()

    def when_it_is_asked() -> None:
        while not any(path.startswith("/crates/") for path in server.requests):
            time.sleep(0.01)
        cancellation.cancel()

    threading.Thread(target=when_it_is_asked).start()

    with pytest.raises(Cancelled):
        list(registry.fetch(wanted, allowance(60, cancellation)))


def test_a_fault_that_may_pass_is_tried_again_and_another_is_not(
    registry: Registry, server: Mirror, wanted: list[Crate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crates, "_PAUSES_SECONDS", (0.0, 0.0))
    for status, tries in (("429", 3), ("418", 1)):
        server.requests.clear()
        server.faults = {"/index/": status}
        with pytest.raises(BuildError, match=f"fetch_network: .* {status} "):
            list(registry.fetch(wanted[:1], allowance(60)))
        assert len(server.requests) == tries
