"""What the journal keeps, and what a crash may do to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from offchainvm import journal as journal_module
from offchainvm.errors import Unavailable
from offchainvm.journal import Journal


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/journal.log"))


def _abandon(journal: Journal) -> None:
    """End a journal as kill -9 would: nothing is written, the lock goes."""
    os.close(journal._file)
    assert journal._lock is not None
    os.close(journal._lock)


def test_entries_come_back_in_order_after_a_crash(tmp_path: Path) -> None:
    first = Journal(tmp_path, "bridge")
    for number in range(3):
        first.append("task", f"key-{number}", bytes([number]))
    _abandon(first)
    second = Journal(tmp_path, "bridge")
    assert second.entries() == [("task", f"key-{number}", bytes([number])) for number in range(3)]
    assert len(_files(tmp_path)) == 1
    second.close()


def test_discarded_entries_stay_gone(tmp_path: Path) -> None:
    first = Journal(tmp_path, "bridge")
    first.append("task", "a", b"1")
    first.append("task", "b", b"2")
    first.discard(["a", "unknown"])
    assert [key for _, key, _ in first.entries()] == ["b"]
    _abandon(first)
    second = Journal(tmp_path, "bridge")
    assert [key for _, key, _ in second.entries()] == ["b"]
    second.close()


def test_a_later_append_replaces_the_earlier(tmp_path: Path) -> None:
    first = Journal(tmp_path, "bridge")
    first.append("task", "a", b"old")
    first.append("task", "a", b"new")
    _abandon(first)
    second = Journal(tmp_path, "bridge")
    assert second.entries() == [("task", "a", b"new")]
    second.close()


@pytest.mark.parametrize("cut", [1, 5, 12, 40])
def test_a_torn_tail_costs_only_the_last_record(tmp_path: Path, cut: int) -> None:
    first = Journal(tmp_path, "bridge")
    first.append("task", "whole", b"x" * 64)
    first.append("task", "torn", b"y" * 64)
    _abandon(first)
    path = _files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-cut])
    second = Journal(tmp_path, "bridge")
    assert second.entries() == [("task", "whole", b"x" * 64)]
    second.append("task", "later", b"z")
    _abandon(second)
    third = Journal(tmp_path, "bridge")
    assert [key for _, key, _ in third.entries()] == ["whole", "later"]
    third.close()


def test_a_flipped_bit_ends_the_reading_and_a_body_cannot_pose_as_a_record(tmp_path: Path) -> None:
    first = Journal(tmp_path, "bridge")
    first.append("task", "good", b"1")
    first.append("task", "bad", journal_module._record(1, "transaction", "forged", b"evil"))
    _abandon(first)
    path = _files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"taskbad")] ^= 1
    path.write_bytes(data)
    second = Journal(tmp_path, "bridge")
    assert second.entries() == [("task", "good", b"1")]
    second.close()


@pytest.mark.parametrize("content", [b"", b"offchainvm jour"])
def test_a_file_torn_in_its_header_is_an_empty_journal(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "bridge.1.dead"
    folder.mkdir()
    (folder / "journal.log").write_bytes(content)
    journal = Journal(tmp_path, "bridge")
    assert journal.entries() == []
    assert not folder.exists()
    journal.close()


def test_a_journal_of_another_version_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "bridge.1.dead"
    folder.mkdir()
    (folder / "journal.log").write_bytes(b"offchainvm journal 2\nsomething")
    journal = Journal(tmp_path, "bridge")
    assert journal.entries() == []
    assert folder.exists()
    journal.close()


def test_a_living_journal_and_those_of_other_roles_are_not_adopted(tmp_path: Path) -> None:
    bridge, resolve = Journal(tmp_path, "bridge"), Journal(tmp_path, "resolve")
    bridge.append("task", "a", b"1")
    other = Journal(tmp_path, "bridge")
    assert other.entries() == [] == resolve.entries()
    bridge.close()
    assert other.adopt() == 1
    assert other.entries() == [("task", "a", b"1")]
    other.close()
    resolve.close()


def test_what_others_keep_can_be_read_and_stays_theirs(tmp_path: Path) -> None:
    one, other, foreign = Journal(tmp_path, "resolve"), Journal(tmp_path, "resolve"), Journal(tmp_path, "bridge")
    one.append("transaction", "a", b"1")
    one.append("transaction", "b", b"2")
    one.discard(["a"])
    foreign.append("task", "c", b"3")
    assert other.entries_of_others() == [("transaction", "b", b"2")]
    assert (other.entries(), one.entries_of_others()) == ([], [])
    for journal in (one, other, foreign):
        journal.close()


def test_a_folder_that_goes_while_it_is_looked_at_is_nothing_to_adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, gone = Journal(tmp_path, "bridge"), tmp_path / "bridge.1.gone"
    gone.mkdir()
    lock = journal_module._try_lock
    monkeypatch.setattr(journal_module, "_try_lock", lambda path: (gone.exists() and gone.rmdir()) or lock(path))
    assert journal.adopt() == 0
    journal.close()


def test_closing_with_nothing_kept_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "bridge")
    journal.append("task", "a", b"1")
    journal.discard(["a"])
    journal.close()
    journal.close()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".home"}


def test_a_place_keeps_its_name(tmp_path: Path) -> None:
    first, second, elsewhere = Journal(tmp_path, "resolve"), Journal(tmp_path, "resolve"), Journal(tmp_path / "other", "resolve")
    assert first.home == second.home != elsewhere.home
    for journal in (first, second, elsewhere):
        journal.close()
    again = Journal(tmp_path, "resolve")
    assert again.home == first.home
    again.close()
    with pytest.raises(RuntimeError, match="closed"):
        journal.append("task", "b", b"2")


def test_dead_records_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_REWRITE_BYTES", 10_000)
    journal = Journal(tmp_path, "bridge")
    journal.append("task", "kept", b"k" * 100)
    for number in range(100):
        journal.append("task", str(number), b"x" * 1000)
        journal.discard([str(number)])
    assert _files(tmp_path)[0].stat().st_size < 15_000
    _abandon(journal)
    second = Journal(tmp_path, "bridge")
    assert second.entries() == [("task", "kept", b"k" * 100)]
    second.close()


def test_concurrent_appends_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "bridge")
    syncs, real_sync, gate, others = list[int](), journal_module._sync, threading.Event(), 8

    def slow_sync(file: int) -> None:
        syncs.append(file)
        gate.wait(10)
        real_sync(file)

    monkeypatch.setattr(journal_module, "_sync", slow_sync)
    threads = [threading.Thread(target=journal.append, args=("task", str(number), b"x")) for number in range(others + 1)]
    for thread in threads:
        thread.start()
    while len(journal._pending) < others:
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert len(syncs) == 2
    assert len(journal.entries()) == others + 1
    journal.close()


def test_a_disk_that_refuses_is_told_and_later_records_stay_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "bridge")
    journal.append("task", "before", b"1")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_sync", full)
        with pytest.raises(Unavailable, match=r"No space left on device.*STATE_DIR"):
            journal.append("task", "lost", b"2")
    journal.append("task", "after", b"3")
    assert [key for _, key, _ in journal.entries()] == ["before", "after"]
    _abandon(journal)
    second = Journal(tmp_path, "bridge")
    assert [key for _, key, _ in second.entries()] == ["before", "after"]
    second.close()


def _append_for_ever(folder: Path, told: multiprocessing.connection.Connection) -> None:
    journal = Journal(folder, "bridge")
    number = 0
    while True:
        journal.append("task", str(number), os.urandom(200))
        told.send(number)
        number += 1


def test_what_was_appended_before_kill_9_is_there_after(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_append_for_ever, args=(tmp_path, sender))
    process.start()
    sender.close()
    while (durable := receiver.recv()) < 50:
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    try:
        while True:
            durable = receiver.recv()
    except EOFError:
        pass
    journal = Journal(tmp_path, "bridge")
    assert {key for _, key, _ in journal.entries()} >= {str(number) for number in range(durable + 1)}
    journal.close()


def test_a_forked_child_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "bridge")
    monkeypatch.setattr(journal_module.os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="forked"):
        journal.append("task", "a", b"1")
    monkeypatch.undo()
    journal.close()
