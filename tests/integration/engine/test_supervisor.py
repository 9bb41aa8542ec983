"""The supervisor keeps its house: no process, no descriptor and no child outlives its use."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import wasmtime
from guests import a_child_works, child_standing_by, once_busy
from workers import wait_until

from offchainvm.engine.base import Cancellation, ExecutionRequest, Limits
from offchainvm.engine.limits import MIB, CompileLimits
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import SettingsError, Status
from offchainvm.settings import Settings
from tests.integration.engine.test_components import HOST, SLEEP, command

LIMITS = Limits(instructions=10_000_000, memory_bytes=MIB, wall_seconds=5)
ENDLESS_LIMITS = Limits(instructions=10**15, memory_bytes=MIB, wall_seconds=600)
ANSWER = """(module (memory (export "memory") 1) (data (i32.const 100) "\\02\\00\\00\\00ok")
  (func (export "execute") (param i32 i32) (result i32) (i32.const 100)))"""
LOOP = '(module (func (export "_start") (loop (br 0))))'


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], Path]:
    def write(wat: str) -> Path:
        path = tmp_path / f"{hashlib.sha256(wat.encode()).hexdigest()}.wasm"
        path.write_bytes(bytes(wasmtime.wat2wasm(wat)))
        return path

    return write


@pytest.fixture
def supervisor(tmp_path: Path):
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB, metering=Settings.model_fields["metering"].default) as made:
        yield made


def zygote_pid(supervisor: Supervisor) -> int:
    assert supervisor._zygote is not None
    return supervisor._zygote.pid


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 20
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlived its supervisor"
        time.sleep(0.01)


def family(supervisor: Supervisor) -> set[int]:
    """The zygote and the one child that stands by, once the last job's child is gone."""
    assert supervisor._zygote is not None
    supervisor._zygote._settle()
    return {zygote_pid(supervisor), child_standing_by(zygote_pid(supervisor)).pid}


@pytest.fixture
def odd_jobs(supervisor: Supervisor, module: Callable[[str], Path], tmp_path: Path) -> Callable[[int], None]:
    """One each of what ends in another way: a module that does not compile, a component, one that is killed, one that is cancelled."""
    component, asleep, request = tmp_path / "component.wasm", tmp_path / "asleep.wasm", ExecutionRequest(b"", LIMITS)
    component.write_bytes(command("(i32.const 0)", more="(memory 1)"))
    asleep.write_bytes(command("(call $block (call $wait (i64.const 3600000000000))) (i32.const 0)", before=SLEEP, imports=HOST))
    short = ExecutionRequest(b"", Limits(instructions=10**6, memory_bytes=MIB, wall_seconds=0.05))
    cancelled = Cancellation()
    cancelled.cancel()

    def run(number: int) -> None:
        invalid = module(f'(module (func (export "_start")) (global i32 (i32.const {number})))')
        invalid.write_bytes(invalid.read_bytes() + b"\x0b\x01\x01")
        assert supervisor.execute(invalid, request).status is Status.INVALID_MODULE
        assert supervisor.execute(component, request).ok
        assert supervisor.execute(asleep, short).status is Status.TIMEOUT
        assert supervisor.execute(module(LOOP), request, cancellation=cancelled).status is Status.CANCELLED

    return run


def test_a_thousand_jobs_leak_no_process_no_descriptor_and_no_memory(supervisor, module, odd_jobs, record_property):
    answer, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    trap = module('(module (func (export "_start") (unreachable)))')
    for path in (answer, trap):
        supervisor.execute(path, request)
    odd_jobs(0)
    gc.collect()
    family(supervisor)
    ours, zygote = psutil.Process(), psutil.Process(zygote_pid(supervisor))
    descriptors, memory = (ours.num_fds(), zygote.num_fds()), (ours.memory_info().rss, zygote.memory_info().rss)
    for number in range(1, 491):
        assert supervisor.execute(answer, request).stdout == b"ok"
        assert supervisor.execute(trap, request).status is Status.TRAP
        if number % 98 == 0:
            odd_jobs(number)
    family(supervisor)
    now = (ours.num_fds(), zygote.num_fds())
    assert all(count <= before for count, before in zip(now, descriptors, strict=True)), (descriptors, now)
    grown = (ours.memory_info().rss - memory[0], zygote.memory_info().rss - memory[1])
    record_property("grown_bytes", str(grown))
    assert max(grown) < 2 * MIB
    assert zygote.num_threads() == 1


def test_closing_leaves_no_process_and_may_be_done_twice(supervisor, module):
    supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS))
    pids = family(supervisor)
    supervisor.close()
    wait_until_gone(pids)
    supervisor.close()


def test_a_closed_supervisor_starts_again_when_asked(supervisor, module):
    for _ in range(2):
        assert supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS)).ok
        supervisor.close()


def test_a_dead_zygote_is_replaced(supervisor, module):
    path, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    supervisor.execute(path, request)
    old = family(supervisor)
    os.kill(zygote_pid(supervisor), signal.SIGKILL)
    wait_until_gone(old)
    assert supervisor.execute(path, request).ok
    assert zygote_pid(supervisor) not in old


def test_a_zygote_killed_in_a_job_is_an_engine_crash_and_takes_its_child_along(supervisor, module):
    supervisor.execute(module(LOOP), ExecutionRequest(b"", LIMITS))
    pids = family(supervisor)
    killer = once_busy(supervisor, lambda: os.kill(zygote_pid(supervisor), signal.SIGKILL))
    result = supervisor.execute(module(LOOP), ExecutionRequest(b"", ENDLESS_LIMITS))
    killer.join()
    assert result.status is Status.ENGINE_CRASH
    wait_until_gone(pids)
    assert supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS)).ok


def test_a_child_killed_in_a_job_is_an_engine_crash_with_its_last_count(supervisor, module):
    supervisor.execute(module(LOOP), ExecutionRequest(b"", LIMITS))

    def kill() -> None:
        for child in psutil.Process(zygote_pid(supervisor)).children():
            child.kill()

    killer = once_busy(supervisor, kill)
    result = supervisor.execute(module(LOOP), ExecutionRequest(b"", ENDLESS_LIMITS))
    killer.join()
    assert (result.status, result.instructions_exact) == (Status.ENGINE_CRASH, False)
    assert result.instructions_used > 0


def test_a_child_that_died_while_it_stood_by_costs_one_engine_crash(supervisor, module):
    path, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    supervisor.execute(path, request)
    (child,) = family(supervisor) - {zygote_pid(supervisor)}
    os.kill(child, signal.SIGKILL)
    assert supervisor.execute(path, request).status is Status.ENGINE_CRASH
    assert supervisor.execute(path, request).ok


@pytest.mark.parametrize("name", ["running", "compiling", "not begun"])
def test_a_cancelled_execution_ends_at_once_and_the_next_one_runs(supervisor, module, name):
    supervisor.execute(module(LOOP if name == "running" else ANSWER), ExecutionRequest(b"", LIMITS))
    zygote, endless, cancellation = zygote_pid(supervisor), module(LOOP), Cancellation()
    if name == "compiling":
        ifs = "(if (local.get 0) (then (local.set 0 (i32.const 7))))" * 99_000
        endless = module(f'(module (func (export "_start") (local i32) {ifs}))')
    if name == "not begun":
        cancellation.cancel()
    else:
        canceller = once_busy(supervisor, cancellation.cancel)
    result = supervisor.execute(endless, ExecutionRequest(b"", ENDLESS_LIMITS), cancellation=cancellation)
    if name != "not begun":
        canceller.join()
    assert (result.status, result.instructions_exact) == (Status.CANCELLED, name != "running")
    assert (result.instructions_used > 0) is (name == "running")
    assert supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS), cancellation=Cancellation()).ok
    assert zygote_pid(supervisor) == zygote
    family(supervisor)


def test_a_cancellation_that_comes_too_late_ends_nothing(supervisor, module):
    cancellation = Cancellation()
    assert supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS), cancellation=cancellation).ok
    cancellation.cancel()
    assert supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS)).ok


def test_native_code_is_compiled_once_for_all_processes(supervisor, module, tmp_path):
    path, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    first, second = supervisor.execute(path, request), supervisor.execute(path, request)
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB) as other:
        third = other.execute(path, request)
    assert [result.cache_hit for result in (first, second, third)] == [False, True, True]
    assert first.compile_ms > 0
    assert third.compile_ms == 0


def test_supervisors_that_compile_and_evict_at_once_give_their_answers(module, tmp_path):
    """Three with a cache for one module and a half: whatever one removes, the others have it open, or compile again."""
    paths = [module(ANSWER.replace("ok", text)) for text in ("aa", "bb", "cc")]
    answers, request = [], ExecutionRequest(b"", LIMITS)

    def work(made: Supervisor) -> None:
        for turn in range(12):
            made._compiled.close()
            answers.append(made.execute(paths[turn % 3], request).stdout == (b"aa", b"bb", b"cc")[turn % 3])

    made = [Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=20_000) for _ in range(3)]
    threads = [threading.Thread(target=work, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    for thread, one in zip(threads, made, strict=True):
        thread.join()
        one.close()
    assert answers == [True] * 36
    assert sum(path.stat().st_size for path in (tmp_path / "native").glob("*.native")) <= 20_000
    assert not list((tmp_path / "native").glob("*.part"))


def test_damaged_native_code_is_compiled_again(supervisor, module, tmp_path):
    path, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    supervisor.execute(path, request)
    (native,) = (tmp_path / "native").glob("*.native")
    native.write_bytes(native.read_bytes()[:-1] + b"X")
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB) as other:
        result = other.execute(path, request)
    assert (result.stdout, result.cache_hit) == (b"ok", False)


def test_native_code_of_another_engine_is_compiled_again(supervisor, module, tmp_path):
    path, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    supervisor.execute(path, request)
    (native,) = (tmp_path / "native").glob("*.native")
    head, _ = supervisor._compiled._cache.get(native.stem) or ({}, b"")
    supervisor._compiled._cache.put(native.stem, head, b"made by an engine of another time")
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB) as other:
        result = other.execute(path, request)
        assert (result.stdout, result.cache_hit) == (b"ok", False)
        assert other.execute(path, request).cache_hit


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (CompileLimits(wall_seconds=0.05), Status.COMPILE_TIMEOUT),
        (CompileLimits(data_bytes=0), Status.COMPILE_RESOURCE_LIMIT),
    ],
)
def test_compilation_has_limits_of_its_own(tmp_path, module, limits, status):
    bomb = '(module (func (export "_start") (local i32)' + "(if (local.get 0) (then (local.set 0 (i32.const 7))))" * 60_000 + "))"
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB, compile_limits=limits) as made:
        assert made.execute(module(bomb), ExecutionRequest(b"", LIMITS)).status is status
        assert made.execute(module(ANSWER), ExecutionRequest(b"", LIMITS)).status in (Status.OK, status)


def test_a_module_that_does_not_compile_takes_a_compiler_once_and_leaves_nothing_on_disk(tmp_path):
    invalid, request = tmp_path / "invalid.wasm", ExecutionRequest(b"", LIMITS)
    # Its code takes a global that is not there: only an engine's validation finds that.
    invalid.write_bytes(b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\7\n\1\6_start\0\0\n\7\1\5\0\x23\0\x1a\x0b")
    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB) as made:
        first = made.execute(invalid, request)
        made._drop_zygote()
        again = made.execute(invalid, request)
        assert made._zygote is None
    assert (first.status, first.message) == (again.status, again.message)
    assert first.status is Status.INVALID_MODULE
    assert list((tmp_path / "native").glob("*.native")) == []


def test_threads_take_turns(supervisor, module):
    path, request = module(ANSWER), ExecutionRequest(b"", LIMITS)
    results = []
    threads = [threading.Thread(target=lambda: results.append(supervisor.execute(path, request).stdout)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"ok"] * 6


def _in_daemon(folder: str, module: str, queue: multiprocessing.SimpleQueue) -> None:
    with Supervisor(cache_folder=Path(folder), cache_max_bytes=64 * MIB) as made:
        queue.put(made.execute(Path(module), ExecutionRequest(b"", LIMITS)).stdout)


def test_it_works_in_a_daemonic_process(tmp_path, module):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_in_daemon, args=(str(tmp_path / "native"), str(module(ANSWER)), queue), daemon=True)
    process.start()
    assert queue.get() == b"ok"
    process.join()


def test_a_forked_copy_of_the_owner_gets_a_zygote_of_its_own(tmp_path, module):
    code = f"""
import os, sys
from pathlib import Path
from offchainvm.engine.base import ExecutionRequest, Limits
from offchainvm.engine.supervisor import Supervisor
made = Supervisor(cache_folder=Path({str(tmp_path / "native")!r}), cache_max_bytes=1 << 26)
request = ExecutionRequest(b"", Limits(instructions=10**6, memory_bytes=1 << 20, wall_seconds=5))
run = lambda: made.execute(Path({str(module(ANSWER))!r}), request).stdout == b"ok"
assert run()
first = made._zygote.pid
if os.fork() == 0:
    good = run() and made._zygote.pid != first
    made.close()
    os._exit(0 if good else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert run() and made._zygote.pid == first
made.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_killed_owner_leaves_nothing_behind(tmp_path, module):
    code = f"""
import sys, time
from pathlib import Path
from offchainvm.engine.base import ExecutionRequest, Limits
from offchainvm.engine.supervisor import Supervisor
made = Supervisor(cache_folder=Path({str(tmp_path / "native")!r}), cache_max_bytes=1 << 26)
made.execute(Path({str(module(ANSWER))!r}), ExecutionRequest(b"", Limits(instructions=10**6, memory_bytes=1 << 20, wall_seconds=5)))
print(made._zygote.pid, flush=True)
made.execute(Path({str(module(LOOP))!r}), ExecutionRequest(b"", Limits(instructions=10**15, memory_bytes=1 << 20, wall_seconds=60)))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        zygote = psutil.Process(int(owner.stdout.readline()))
        wait_until(lambda: a_child_works(zygote.pid), "its guest to run")
        pids = {zygote.pid, *(child.pid for child in zygote.children())}
        owner.kill()
        owner.wait()
    wait_until_gone(pids)


def test_the_zygote_and_its_children_see_nothing_of_our_environment(supervisor, module, monkeypatch):
    monkeypatch.setenv("OPERATOR_PRIVATE_KEY", "ed25519:secret")
    supervisor.execute(module(ANSWER), ExecutionRequest(b"", LIMITS))
    assert {variable for pid in family(supervisor) for variable in psutil.Process(pid).environ()} <= {"LC_CTYPE"}


def test_what_is_not_built_says_so(tmp_path):
    with pytest.raises(SettingsError, match="METERING=injected"):
        Supervisor(cache_folder=tmp_path, cache_max_bytes=1, metering="guessed")
    with pytest.raises(SettingsError, match="WASM_RUNTIME=wasmtime"):
        Supervisor(cache_folder=tmp_path, cache_max_bytes=1, engine="wasm3")
