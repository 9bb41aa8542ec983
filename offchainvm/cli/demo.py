"""``offchainvm demo``: one request through the whole way, and what came back."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console

from offchainvm.cli import report, world
from offchainvm.cli.stack import Stack, StackOptions
from offchainvm.compiler.local import BRANCH
from offchainvm.devnet.client import Limits, Requested, Result
from offchainvm.errors import OffchainVMError
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Event, Job, State
from offchainvm.jobs.store import JobStore
from offchainvm.times import duration

INPUT = "The contract asks.\nA machine room far from the chain computes.\nThe contract is answered."
LIMITS = Limits(max_instructions=1_000_000_000, max_memory_mb=64, max_execution_seconds=10)
ANSWER_SECONDS, SETTLE_SECONDS = 600.0, 30.0
_PAUSE_SECONDS = 0.1
_YOCTO = 10**24

# What the lines of a job's history mean to somebody who sees them for the first time.
_MEANING = {
    ("compile", "accepted"): "the worker took the task from the Coordinator; the source must be built",
    ("execute", "accepted"): "the worker took the task from the Coordinator; the module is known",
    ("compile", "claimed"): "a compile worker has it",
    ("compile", "building"): "building in a sandbox: clone, inspect, fetch, compile without a network",
    ("compile", "done"): "built, checked and stored in the Coordinator's cache",
    ("execute", "claimed"): "an execute worker has it",
    ("execute", "done"): "the module ran in a child process; its answer is fixed from here on",
    ("resolve", "signed"): "signed and stored, then sent to the chain",
    ("resolve", "accepted"): "the chain took it, and it is final",
}

_PREBUILT = typer.Option(False, "--prebuilt", help="Do not build; run the prebuilt module from the repository.")
_KEEP = typer.Option(None, "--logs", help="Keep the logs of all processes in this folder.")


def demo(prebuilt: bool = _PREBUILT, logs: Path | None = _KEEP) -> None:
    """Run one request all the way on this machine, from the contract to its answer, and show each step."""
    console = report.console()
    started = time.monotonic()
    with world.ending_in_order(), tempfile.TemporaryDirectory(prefix="offchainvm-demo-") as folder:
        right = _Demo(console, Path(folder), logs).run(prebuilt=prebuilt)
    console.print(f"\nEverything that was started is stopped. {duration(time.monotonic() - started)} in all.")
    raise typer.Exit(0 if right else 1)


class _Demo:
    """The acts of the demo, and what they share."""

    def __init__(self, console: Console, folder: Path, logs: Path | None) -> None:
        self._console = console
        self._folder = folder
        self._logs = logs
        self._begin = time.monotonic()

    def run(self, *, prebuilt: bool) -> bool:
        """Whether the contract's callback got the right value."""
        example = world.publish_example(self._folder / "mirror")
        self._console.print("[bold]1. What builds the program[/]")
        why_not = "asked for by --prebuilt" if prebuilt else world.why_not_build(self._folder / "image", self._line)
        if why_not:
            self._line(f"No build here ({why_not}). The same program runs from the module in examples/prebuilt.")
        roles = ("bridge", "execute", "resolve") if why_not else ("bridge", "compile", "execute", "resolve")
        self._console.print("\n[bold]2. A world on loopback ports[/]")
        options = StackOptions(roles=roles, settings=example.settings)
        with Stack(options, folder=self._logs and self._logs.resolve(), say=self._line) as stack:
            if why_not:
                world.upload_prebuilt(stack, example)
            return self._request(stack)

    def _request(self, stack: Stack) -> bool:
        self._console.print("\n[bold]3. A client calls request_execution on the contract[/]")
        self._line(f"{world.REPOSITORY} @ {BRANCH}, and {len(INPUT)} characters of text to count words in")
        self._begin = time.monotonic()
        requested = stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, INPUT, LIMITS)
        self._stamp(f"request {requested.request_id} is in block {requested.height}, the contract waits (at most 200 blocks)")
        store = JobStore(connect(stack.redis_url))
        answer = _in_background(lambda: stack.client.result(requested.request_id, ANSWER_SECONDS))
        watch = _Watch(store, requested, self._stamp)
        with self._console.status("waiting for the chain …") as status:
            while answer.running():
                status.update(watch.look())
                stack.check()
                time.sleep(_PAUSE_SECONDS)
        result = answer.result()
        watch.until_settled()
        self._stamp("the contract's callback got the answer")
        return self._show(result, store.get(requested.data_id))

    def _show(self, result: Result, job: Job | None) -> bool:
        right = result.state == "succeeded" and result.value == world.expected_answer(INPUT)
        self._console.print("\n[bold]4. What came back[/]")
        self._line(f"value        {report.untrusted(result.value or 'none')}  {'[green]as it should be[/]' if right else '[red]WRONG[/]'}")
        if result.error:
            self._line(f"error        {report.untrusted(result.error)}")
        if result.response is not None:
            self._line(f"used         {report.used_text(result.response['resources_used'])}")
        self._line(f"cost         {result.charged_yocto / _YOCTO:.6f} NEAR charged, {result.refund_yocto / _YOCTO:.6f} NEAR refunded")
        self._line(f"transaction  {result.resolved_by or 'none'}, in block {result.resolved_height}")
        if job is not None and job.module_sha256:
            self._line(f"module       sha256 {job.module_sha256[:16]}… of commit {(job.commit_sha or '')[:12]}")
        self._console.print("\n[bold]Where to look next[/]")
        self._line("make dev              the same world, kept running, with Flower and the commands to look at it")
        self._line("examples/             the program that ran, and a second one: docs/guests.md says how to write yours")
        self._line("docs/architecture.md  how one job survives whatever dies on its way")
        return right

    def _line(self, text: str) -> None:
        self._console.print(f"   {text}", soft_wrap=True)

    def _stamp(self, text: str) -> None:
        self._console.print(f"   [cyan]{time.monotonic() - self._begin:6.2f} s[/]  {text}", soft_wrap=True)


class _Watch:
    """Shows each new line of one job's history."""

    def __init__(self, store: JobStore, requested: Requested, stamp: Callable[[str], None]) -> None:
        self._store = store
        self._data_id = requested.data_id
        self._stamp = stamp
        self._seen = 0

    def look(self) -> str:
        """Show what is new; what is going on now."""
        history = self._store.history(self._data_id)
        for event in history[self._seen :]:
            self._stamp(f"[bold]{event.stage:<8}[/] {_meaning(event)}")
        self._seen = len(history)
        return f"{history[-1].stage}: {history[-1].what} …" if history else "the bridge watches the chain …"

    def until_settled(self) -> None:
        """Look until the job is settled."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            self.look()
            job = self._store.get(self._data_id)
            if job is not None and job.state is State.SETTLED:
                self.look()
                return
            time.sleep(_PAUSE_SECONDS)


def _meaning(event: Event) -> str:
    known = _MEANING.get((event.stage, event.what))
    return known or f"{event.what} {report.untrusted(event.detail, limit=100)}".rstrip()


class _Background:
    """One call in a thread of its own."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._result: Result | None = None
        self._error: OffchainVMError | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Result]) -> None:
        try:
            self._result = call()
        except OffchainVMError as error:
            self._error = error

    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Result:
        if self._error is not None or self._result is None:
            raise self._error or OffchainVMError("The chain's answer could not be read.")
        return self._result


def _in_background(call: Callable[[], Result]) -> _Background:
    return _Background(call)
