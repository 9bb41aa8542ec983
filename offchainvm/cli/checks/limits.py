"""Which limits executions met lately. What a program does makes no installation wrong: told, not judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from offchainvm.cli.checks.needs import need
from offchainvm.errors import Status
from offchainvm.jobs.connection import connect
from offchainvm.jobs.record import Job, State
from offchainvm.jobs.store import JobStore
from offchainvm.settings import Settings, load_only

_JOBS = 200
_LIMITS: Mapping[str, str] = {
    Status.TIMEOUT.value: "max_execution_seconds",
    Status.OUT_OF_FUEL.value: "max_instructions",
    Status.MEMORY_LIMIT.value: "max_memory_mb",
}
"""The limit that an error's code is about."""


def check_limits() -> str:
    """How many of the newest jobs ended at a limit, and whose it was."""
    with connect(need("redis_url").redis_url) as client:
        jobs = JobStore(client).list_jobs(State.SETTLED, limit=_JOBS)
    settings = load_only([f"default_{limit}" for limit in _LIMITS.values()])
    met = Counter(why for job in jobs if (why := _why(job, settings)))
    return f"of {len(jobs)} settled jobs {_told(met)}" if met else f"none of {len(jobs)} settled jobs met a limit"


def _told(met: Mapping[str, int]) -> str:
    return ", ".join(f"{jobs} ended by {why}" for why, jobs in met.items())


def _why(job: Job, settings: Settings) -> str:
    """The limit that ended an execution, and who can raise it; empty where none did."""
    code = (job.response.error or "").partition(":")[0] if job.response else ""
    limit = _LIMITS.get(code)
    if limit is None or job.module_sha256 is None:  # a build has a time-out of its own
        return ""
    if limit in job.limits_clamped:
        return f"{code} (raise {limit.upper()}: it lowered what the request asked for)"
    if getattr(job.limits, limit) == getattr(settings, f"default_{limit}"):
        return f"{code} (raise DEFAULT_{limit.upper()}, or let the request ask for more)"
    return f"{code} (the request's own {limit})"
