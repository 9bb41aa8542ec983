"""Live, ready, and what a process without HTTP shows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offchainvm import health, notify
from offchainvm.errors import Unavailable
from offchainvm.health.server import serve
from offchainvm.liveness import liveness_file, main, touch_file
from offchainvm.readiness import Readiness


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFCHAINVM_LIVE_DIR", str(tmp_path / "live"))
    monkeypatch.setattr(health, "_readiness", Readiness())
    monkeypatch.setattr(health, "_loops", {})


def test_a_process_that_never_told_is_not_called_dead() -> None:
    assert health.live() == []


def test_the_watchdog_is_fed_only_while_every_loop_of_the_process_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(notify, "tell", told.append)
    health.touch("bridge@one")
    later = time.monotonic() + health.STALE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    health.touch("monitor@one")
    assert told == [notify.ALIVE]
    health.touch("bridge@one")
    assert told == [notify.ALIVE] * 2


def test_a_loop_that_turns_is_live_and_one_that_stopped_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    health.touch("execute@one")
    assert [check.ok for check in health.live()] == [True]
    later = time.monotonic() + health.STALE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    (check,) = health.live()
    assert (check.name, check.ok) == ("execute@one", False)
    assert "Restart" in check.remedy


def test_a_failed_check_brings_its_remedy() -> None:
    def redis_away() -> None:
        raise Unavailable("redis", "Redis does not answer.", remedy="Start it.")

    health.add_check("redis", redis_away)
    health.add_check("disk", lambda: True)
    health.add_check("kernel", lambda: "old, but it works")
    assert [(check.name, check.ok, check.detail, check.remedy) for check in health.ready()] == [
        ("redis", False, "Redis does not answer.", "Start it."),
        ("disk", True, "", ""),
        ("kernel", True, "old, but it works", ""),
    ]


def test_a_check_that_breaks_failed_and_shows_no_value() -> None:
    def broken() -> None:
        raise KeyError("s3cret")

    health.add_check("odd", broken)
    (check,) = health.ready()
    assert not check.ok
    assert "s3cret" not in check.detail + check.remedy


def test_the_file_of_a_name_stays_in_its_folder(tmp_path: Path) -> None:
    health.touch("../../etc/passwd")
    assert [file.name for file in (tmp_path / "live").iterdir()] == ["__.._etc_passwd"]


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OFFCHAINVM_LIVE_DIR", str(tmp_path / "file" / "below"))
    health.touch("one")
    assert health.live()[0].ok


def test_the_health_check_without_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 1
    assert "no living process" in capsys.readouterr().err
    health.touch("bridge")
    health.touch("execute@one")
    assert main() == 0
    old = time.time() - health.STALE_SECONDS - 5
    os.utime(liveness_file("bridge"), (old, old))
    assert main() == 1
    assert "bridge: its loop last turned" in capsys.readouterr().err


def test_the_file_of_a_killed_process_is_not_judged() -> None:
    health.touch("old")
    file = liveness_file("old")
    file.write_text(f"{os.getpid()} 1")  # the same process id, started at another time
    os.utime(file, (1, 1))
    assert main() == 1
    health.touch("new")
    assert main() == 0


def test_a_process_beside_this_one_that_hangs_makes_it_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_beside", {})
    health.watch_process("resolve worker", health.Process("resolve@one"))
    assert health.is_live()  # it has not begun yet
    touch_file("resolve@one")
    assert health.is_live()
    old = time.time() - health.STALE_SECONDS - 5
    os.utime(liveness_file("resolve@one"), (old, old))
    (check,) = health.live()
    assert (check.name, check.ok) == ("resolve worker", False)
    assert "resolve@one hangs" in check.detail
    liveness_file("resolve@one").write_text(f"{os.getpid()} 1")  # it ended: its keeper starts it again
    assert health.is_live()


def test_no_port_means_no_server() -> None:
    assert serve(0, name="bridge") is None


def test_a_loop_that_hangs_beside_the_main_one_lets_the_liveness_file_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    health.watch_loop("settler", health.Loop(patience_seconds=0))
    time.sleep(0.001)
    health.touch("bridge@one")
    assert not liveness_file("bridge@one").exists()
    health.watch_loop("settler", health.Loop())
    health.touch("bridge@one")
    assert liveness_file("bridge@one").exists()


def test_a_containers_health_check_loads_no_more_than_it_needs() -> None:
    loaded = "import sys, offchainvm.liveness; print({'structlog', 'pydantic', 'celery'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "set()\n"
