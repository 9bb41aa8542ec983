"""The short ways through a stack of real processes that acceptance tests begin with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import urllib3
import wasmtime

from offchainvm.cli.stack import Stack
from offchainvm.compiler.local import publish_folder
from offchainvm.compiler.source import source_key
from offchainvm.devnet.client import Limits, Requested, Result
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Job, State
from offchainvm.jobs.store import JobStore

EXAMPLES = Path(__file__).parents[2] / "examples"
TARGET = "wasm32-unknown-unknown"
SHA = "1" * 40
PROGRESS_SECONDS = 90
"""How long a test waits for something that must happen; waiting ends when it does."""

MANIFEST = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[lib]\ncrate-type = ["cdylib"]\n[workspace]\n'
LOCKFILE = 'version = 3\n\n[[package]]\nname = "guest"\nversion = "0.1.0"\n'
# Answers its input: a length of four bytes, then the bytes, after them in memory.
ECHO = """(module (memory (export "memory") 2)
  (func (export "execute") (param $at i32) (param $length i32) (result i32) {work}
    (i32.store (i32.const 65536) (local.get $length))
    (memory.copy (i32.const 65540) (local.get $at) (local.get $length))
    (i32.const 65536)))"""
# Each division waits for the one before it: no compiler makes that quick, and it costs few instructions a second.
BURN = """(local $left i64) (local $rest i64)
    (local.set $left (i64.const {rounds}))
    (loop $again
      (local.set $rest (i64.rem_u (i64.const 0x7fffffffffffffe7) (i64.add (local.get $rest) (i64.const 3))))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))"""
SLOW_ROUNDS = 300_000_000
"""A second or two of work: long enough to be killed in the middle of it."""

SLOW_CHAIN = ("--block-time", "0.6")
"""For what takes long: a contract waits 200 blocks for its answer, here two minutes."""


def echo_module(rounds: int = 0) -> bytes:
    """A guest that answers its input, after ``rounds`` of a loop."""
    return bytes(wasmtime.wat2wasm(ECHO.format(work=BURN.format(rounds=rounds) if rounds else "")))


class World:
    """A stack and the short ways through it that tests begin with."""

    def __init__(self, stack: Stack, mirror: Path) -> None:
        self.stack, self.mirror = stack, mirror
        self.redis = connect(stack.redis_url)
        self.store = JobStore(self.redis)
        self._http = urllib3.PoolManager(retries=False)

    def publish(self, name: str, *, build_script: str = "", library: str | None = None, rounds: int = 0) -> str:
        """A repository ``tests/NAME`` that answers its input; its SHA."""
        folder = self.mirror.parent / f"{name}-tree"
        (folder / "src").mkdir(parents=True, exist_ok=True)
        (folder / "Cargo.toml").write_text(MANIFEST)
        (folder / "Cargo.lock").write_text(LOCKFILE)
        if build_script:
            (folder / "build.rs").write_text(build_script)
        (folder / "src" / "lib.rs").write_text(library if library is not None else RUST_ECHO.replace("ROUNDS", str(rounds)))
        return publish_folder(folder, self.mirror, owner="tests", name=name)

    def cache(self, name: str, wasm: bytes) -> None:
        """Put a module into the Coordinator's cache, as the source ``tests/NAME`` at SHA."""
        self.coordinator("PUT", f"wasm/{source_key(self.repo(name), SHA, TARGET)}", wasm)

    def repo(self, name: str) -> str:
        return f"https://github.com/tests/{name}"

    def ask(self, name: str, input_data: str, *, commit: str = SHA, limits: Limits | None = None) -> Requested:
        """A client's transaction: ``request_execution``."""
        return self.stack.client.request_execution(self.repo(name), commit, TARGET, input_data, limits or Limits())

    def ask_all(self, name: str, text: str, count: int, *, commit: str = SHA) -> dict[str, Requested]:
        """So many transactions, waited for together; each by its input, which is ``text`` with its number."""
        inputs, client = [f"{text} {number}" for number in range(count)], self.stack.client
        hashes = [client.send_request(self.repo(name), commit, TARGET, one, Limits()) for one in inputs]
        return dict(zip(inputs, client.landed(hashes), strict=True))

    def result(self, request: Requested) -> Result:
        return self.stack.client.result(request.request_id, timeout_seconds=PROGRESS_SECONDS)

    def resolves_of(self, request: Requested) -> list[dict[str, Any]]:
        """Successful calls of resolve_execution for one request: there must be exactly one."""
        wanted = list(bytes.fromhex(request.data_id))
        return [told for told in self.stack.client.resolves() if told["accepted"] and json.loads(told["arguments"])["data_id"] == wanted]

    def wait_for_state(self, request: Requested, state: State, stage: str | None = None) -> Job:
        def look() -> Job | None:
            job = self.store.get(request.data_id)
            return job if job is not None and job.state is state and stage in (None, job.stage.value) else None

        return until(look, f"job {request.request_id} to be {state.value}")

    def reports(self, request: Requested) -> list[dict[str, Any]]:
        """What the Coordinator was told of a request; waits for the first."""
        path = f"reports?request_id={request.request_id}"
        return list(until(lambda: json.loads(self.coordinator("GET", path)), f"a report of request {request.request_id}"))

    def assert_answered_once(self, request: Requested, value: str) -> None:
        assert self.result(request).value == value
        assert len(self.resolves_of(request)) == 1
        # Reported at least once: a task that a bridge replays for a settled job is reported again.
        assert {report["success"] for report in self.reports(request)} == {True}

    def assert_each_answered_once(self, requests: Mapping[str, Requested]) -> None:
        """Each with the input by which it stands here."""
        for value, request in requests.items():
            self.assert_answered_once(request, value)

    def expire_leases(self, *requests: Requested) -> None:
        """As if the time of the lease on a job, or on a row to sign, were over; whose holder is gone, or frozen."""
        for request in requests:
            for leases in ("ovm:running", "ovm:taken"):
                self.redis.zadd(leases, {request.data_id: 1}, xx=True)

    def coordinator(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return self._control(method, f"{self.stack.coordinator_url}/control/{path}", body)

    def chain(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return self._control(method, f"{self.stack.chain_url}/control/{path}", body)

    def _control(self, method: str, url: str, body: bytes | None) -> bytes:
        reply = self._http.request(method, url, body=body)
        assert reply.status < 300, (method, url, reply.status, reply.data[:300])
        return bytes(reply.data)

    def kill_tree(self, name: str) -> None:
        """SIGKILL a process and everything below it, as when its host dies."""
        process = psutil.Process(self.stack.processes[name].pid)
        tree = [process, *process.children(recursive=True)]
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(tree, timeout=10)
        self.stack.kill(name)

    def wait_for_log(self, name: str, text: str) -> None:
        until(lambda: text in self.stack.log_of(name), f"{text!r} in the log of {name}")


RUST_ECHO = """
static mut OUTPUT: Vec<u8> = Vec::new();
#[no_mangle]
pub extern "C" fn execute(input: *const u8, length: usize) -> *const u8 {
    let mut sum = 0u64;
    for round in 0..ROUNDSu64 { sum = std::hint::black_box(sum.wrapping_add(round)); }
    std::hint::black_box(sum);
    unsafe {
        let output = &mut *std::ptr::addr_of_mut!(OUTPUT);
        *output = (length as u32).to_le_bytes().to_vec();
        for at in 0..length { output.push(std::ptr::read_volatile(input.add(at))); }
        output.as_ptr()
    }
}
"""


def until(look: Callable[[], Any], what: str | Callable[[], str], *, seconds: float = PROGRESS_SECONDS) -> Any:
    """The first truthy answer of ``look``; ``what`` is waited for, as words or as a look at what there is instead."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.05)
    return found
