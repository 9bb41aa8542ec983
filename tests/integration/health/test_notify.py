"""What systemd is told: by a unit's main process alone, and never at the price of its work."""

from __future__ import annotations

import os
import socket

import pytest
import systemd

from offchainvm import notify


def test_a_unit_s_main_process_is_heard_and_what_it_starts_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with systemd.manager() as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.socket_path)
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notify.tell(notify.ALIVE)
        monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))
        notify.tell(notify.STOPPING)
        assert manager.heard() == ["READY=1", "WATCHDOG=1"]


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0offchainvm-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@offchainvm-test-notify")
        notify.tell(notify.STOPPING)
        assert listening.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/no/such/socket"])
def test_where_nobody_listens_nothing_fails(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.tell(notify.ALIVE)
