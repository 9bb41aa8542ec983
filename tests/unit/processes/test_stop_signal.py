"""A process hears who asks it to stop, whatever its main thread is doing just then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from offchainvm.processes import StopSignal


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_wait_ends_when_a_signal_comes(number: signal.Signals) -> None:
    asked = StopSignal()
    assert not asked.wait(0.01)
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    assert asked.wait(3600), "the time-out of the tests would end it"
    assert asked.number == number
    assert asked.wait(30), "at once: it came already"


def test_one_that_comes_while_the_main_thread_holds_a_lock_of_its_own_waits_for_none() -> None:
    """An event's ``set`` in a handler would wait for ever, when the main thread is in the midst of the event's ``wait``."""
    asked = StopSignal()
    for lock in (value for value in vars(asked).values() if hasattr(value, "acquire") or hasattr(value, "set")):
        pytest.fail(f"its handler may wait for {lock}")
    os.kill(os.getpid(), signal.SIGTERM)
    assert asked.wait(30)


@pytest.mark.parametrize(("options", "code"), [("", 128 + signal.SIGTERM), ("second_ends=False", 0)])
def test_a_second_one_ends_the_process_at_once_where_it_is_to(options: str, code: int) -> None:
    program = f"""
import os, signal
from offchainvm.processes import StopSignal
asked = StopSignal({options})
os.kill(os.getpid(), signal.SIGTERM)
assert asked.wait(30)
os.kill(os.getpid(), signal.SIGTERM)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == code
