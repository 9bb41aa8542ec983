"""Draws what the commands show; the only file that knows rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from offchainvm.engine.base import ExecutionResult
from offchainvm.fleet import Sighting
from offchainvm.jobs.lookups import Rejected
from offchainvm.jobs.record import Event, Job, Message, State
from offchainvm.remedies import remedy_of
from offchainvm.times import duration, moment

BAR_WIDTH = 24
DETAIL_LIMIT = 20
_LINE_LIMIT = 1000
_WORKER_STYLES = {"working": "yellow", "idle": "green", "hung": "red", "gone": "red"}
_STATE_STYLES = {State.SETTLED: "green", State.RUNNING: "yellow", State.RESOLVING: "cyan"}


def console() -> Console:
    """Where the commands write."""
    return Console(highlight=False)


def untrusted(text: str, *, limit: int = 300) -> str:
    """A stranger's text as a terminal may show it: no control characters, no markup, one line."""
    flat = "".join(character if character.isprintable() else "·" for character in text[:limit])
    return escape(flat + ("…" if len(text) > limit else ""))


def source_of(job: Job) -> str:
    """Where a job's program comes from, in short."""
    return untrusted(job.untrusted_origin, limit=70)


def verdict_of(job: Job) -> str:
    """How a job stands, in a word or two."""
    if job.state is not State.SETTLED or job.verdict is None:
        return job.state.value
    if job.response is not None and not job.response.success:
        return f"{job.verdict.value}, failed"
    return job.verdict.value


def jobs_table(jobs: Sequence[Job]) -> Table:
    """One row a job, the newest first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("request", "data id", "state", "stage", "source", "updated"):
        table.add_column(title, no_wrap=title != "source")
    for job in jobs:
        state = Text(verdict_of(job), style=_STATE_STYLES.get(job.state, ""))
        table.add_row(str(job.request_id), job.data_id[:12], state, job.stage.value, source_of(job), moment(job.updated_at))
    return table


def workers_table(found: Sequence[Sighting]) -> Table:
    """One row a process of the fleet."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("worker", "state", "seen", "at once", "engines", "host", "jobs"):
        table.add_column(title, no_wrap=title != "jobs", justify="right" if title == "at once" else "left")
    for one in found:
        member, jobs = one.member, ", ".join(job.data_id[:12] for job in one.jobs)
        table.add_row(
            member.id, Text(one.state, style=_WORKER_STYLES[one.state]), f"{duration(one.age_seconds)} ago", str(member.capacity),
            ", ".join(member.engines), member.host, jobs,
        )  # fmt: skip
    return table


def rejected_table(tasks: Sequence[Rejected]) -> Table:
    """One row a task that could not be read."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("set aside", "request", "why", "task"):
        table.add_column(title, no_wrap=title in {"set aside", "request"}, overflow="fold")
    for task in tasks:
        request = "" if task.request_id is None else str(task.request_id)
        body = untrusted(task.untrusted_task.decode("utf-8", "replace"), limit=200)
        table.add_row(moment(task.at), request, untrusted(task.reason), body)
    return table


def messages_table(messages: Sequence[Message]) -> Table:
    """One row a message that could not be published."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("set aside", "stage", "data ids"):
        table.add_column(title, no_wrap=title != "data ids", overflow="fold")
    for message in messages:
        table.add_row(moment(message.at), message.stage.value, " ".join(data_id[:12] for data_id in message.data_ids))
    return table


def job_facts(job: Job) -> Table:
    """What is known of one job, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    limits = job.limits
    rows = [
        ("request", str(job.request_id)),
        ("data id", job.data_id),
        ("state", f"{verdict_of(job)} (stage {job.stage.value}, attempt {job.attempt + 1})"),
        ("sender", job.sender_id or ""),
        ("source", source_of(job)),
        ("limits", f"{limits.max_instructions:,} instructions, {limits.max_memory_mb} MiB, {limits.max_execution_seconds} s"),
        ("clamped by us", ", ".join(job.limits_clamped)),
        ("deadline height", str(job.deadline_height or "")),
        ("result", _result(job)),
        ("used", _used(job)),
        ("transaction", job.transaction_hash or ""),
        ("error", untrusted(job.error or "")),
        ("what to do", remedy_of(job.untrusted_problem)),
    ]
    for name, text in rows:
        if text:
            table.add_row(name, text)
    return table


def _result(job: Job) -> str:
    if job.response is None:
        return ""
    if job.response.success:
        return value_text(job.response.return_value or b"")
    return untrusted(job.response.error or "failed")


def _used(job: Job) -> str:
    return "" if job.response is None else used_text(job.response.resources_used.model_dump())


def used_text(used: dict[str, int]) -> str:
    """What the contract charges for, in words."""
    return f"{used['instructions']:,} instructions, {used['memory_bytes'] / 2**20:.2f} MiB of memory, {used['time_seconds']} s"


def value_text(value: bytes) -> str:
    """What a program returned, as text where it is text."""
    try:
        return untrusted(value.decode())
    except UnicodeDecodeError:
        return f"{len(value)} bytes: {value[:32].hex()}{'…' if len(value) > 32 else ''}"


def timeline(events: Sequence[Event]) -> Table:
    """A job's history: when, what, and a bar that shows how long until the next line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("at", "left"), ("stage", "left"), ("what", "left"), ("after", "right"), ("", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left", no_wrap=True)
    if not events:
        return table
    start, whole = events[0].at, max(events[-1].at - events[0].at, 1e-9)
    for event, following in zip(events, [*events[1:], events[-1]], strict=True):
        offset, length = int((event.at - start) / whole * BAR_WIDTH), int((following.at - event.at) / whole * BAR_WIDTH)
        bar = Text(" " * min(offset, BAR_WIDTH - 1) + "▇" * max(length, 1), style="cyan")
        what = f"{event.what} {untrusted(event.detail, limit=DETAIL_LIMIT)}" if event.detail else event.what
        table.add_row(moment(event.at), event.stage, what, duration(event.at - start), bar)
    return table


def checks_table(rows: Iterable[tuple[bool | None, str, str, str]]) -> Table:
    """Rows of doctor: ok (None = not looked at), name, detail, remedy."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    marks = {True: Text("ok", style="green"), False: Text("WRONG", style="bold red"), None: Text("-", style="dim")}
    for ok, name, detail, remedy in rows:
        told = "\n".join(untrusted(line, limit=_LINE_LIMIT) for line in detail.splitlines())
        table.add_row(marks[ok], name, told + (f"\n[yellow]→ {untrusted(remedy, limit=_LINE_LIMIT)}[/]" if remedy else ""))
    return table


def execution_table(result: ExecutionResult) -> Table:
    """What one execution used against each limit, and what ran and counted it."""
    limits, title = result.limits, f"{result.status.value}: {untrusted(result.message, limit=500)}".removesuffix(": ")
    compiled = "native code from the cache" if result.cache_hit else f"compiled in {result.compile_ms:.0f} ms"
    exact = "exact" if result.instructions_exact else "last known count"
    table = Table("", "used", "limit", "", title=title)
    for row in (
        ("instructions", f"{result.instructions_used:,}", f"{limits.instructions:,}", f"{exact}, by {result.meter_version}"),
        ("peak memory", _mib(result.peak_memory_bytes), _mib(limits.memory_bytes), "linear memory"),
        ("time", f"{result.wall_ms:.1f} ms", f"{limits.wall_seconds * 1000:,.0f} ms", f"processor {result.cpu_ms:.1f} ms"),
        ("output", f"{len(result.stdout):,} B", f"{limits.output_bytes:,} B", _ending(result, cut=result.stdout_truncated)),
        ("stderr", f"{len(result.stderr):,} B", f"{limits.stderr_bytes:,} B", "cut" if result.stderr_truncated else ""),
        ("engine", f"{result.engine} {result.engine_version}", "", compiled),
        ("module", result.module_sha256[:16] + "…", "", f"SHA-256; entered by {result.entry}" if result.entry else "SHA-256"),
    ):
        table.add_row(*row)
    return table


def comparison_table(rows: Iterable[tuple[str, str, str, bool | None]]) -> Table:
    """One line a property: its name, what the record says, what this run gave, whether they agree (None: not comparable)."""
    marks = {True: Text("agrees", style="green"), False: Text("DIFFERS", style="bold red"), None: Text("not compared", style="dim")}
    table = Table("", "record", "this run", "", title="compared with the record")
    for name, recorded, replayed, agrees in rows:
        table.add_row(name, escape(recorded), escape(replayed), marks[agrees])
    return table


def _mib(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"


def _ending(result: ExecutionResult, *, cut: bool) -> str:
    parts = [
        f"exit code {result.exit_code}" if result.exit_code is not None else "",
        f"trap {untrusted(result.trap)}" if result.trap else "",
        "cut" if cut else "",
    ]
    return ", ".join(part for part in parts if part)
