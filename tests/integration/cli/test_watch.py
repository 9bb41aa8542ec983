"""`offchainvm workers --watch`, as somebody at a terminal runs it, and as a program reads it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.fleet import Heartbeat, Member, Registry
from offchainvm.jobs.connection import connect

SECONDS = 30
# Who started the tests in the background of a shell has told them to ignore Ctrl-C, and so would what they start.
FOREGROUND = ("env", "--default-signal=INT", sys.executable)
# The terminal is this process' own, so that Ctrl-C reaches it as it does a person's.
ON_A_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from offchainvm.cli import main; main(['workers', '--watch'])"
FIRST, SECOND = (Member(f"execute@{name}", name, ("execute",)) for name in ("first", "second"))


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(persistence=True) as server:
        yield server


def environment(server: EmbeddedRedis, home: Path) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**known, "HOME": str(home), "OFFCHAINVM_ENV_FILE": "", "REDIS_URL": server.url, "COLUMNS": "120", "TERM": "xterm"}


class Terminal:
    """What a person sees, and the keys they press."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._screen, keys = pty.openpty()
        self.process = subprocess.Popen(command, stdin=keys, stdout=keys, stderr=keys, env=environment, start_new_session=True)
        os.close(keys)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._screen], [], [], 0.1)[0]:
                self.shown += os.read(self._screen, 65536).decode()

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self._screen)


def test_a_terminal_shows_who_comes_is_told_that_redis_is_away_and_ends_at_ctrl_c(server: EmbeddedRedis, tmp_path: Path) -> None:
    with connect(server.url) as redis:
        Registry(redis).beat(FIRST, well=True)
        terminal = Terminal([*FOREGROUND, "-c", ON_A_TERMINAL], environment(server, tmp_path))
        try:
            terminal.wait_for("execute@first")
            Registry(redis).beat(SECOND, well=True)
            terminal.wait_for("execute@second")
            assert "\x1b[2J" in terminal.shown, "each look begins on an empty screen"
            server.kill()
            terminal.wait_for("REDIS_URL")
            server.restart()
            terminal.shown = ""
            terminal.wait_for("execute@second")
            terminal.press(b"\x03")
            assert terminal.process.wait(SECONDS) == 0
        finally:
            terminal.close()


def test_a_program_reads_one_line_of_json_each_time_and_ends_it_with_the_same_signal(server: EmbeddedRedis, tmp_path: Path) -> None:
    command = [*FOREGROUND, "-m", "offchainvm", "workers", "--watch", "--json"]
    with connect(server.url) as redis:
        Registry(redis).beat(FIRST, well=True)
        heartbeat = Heartbeat(Registry(redis), FIRST, well=lambda: True).start()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(server, tmp_path), text=True) as process:
            assert process.stdout is not None
            for line in (process.stdout.readline(), process.stdout.readline()):
                assert [(one["id"], one["state"]) for one in json.loads(line)] == [("execute@first", "idle")]
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        heartbeat.stop()
