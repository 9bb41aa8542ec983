"""What each page shows: a template and its values, read from Redis at the moment of asking."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from redis import Redis

from offchainvm import __version__
from offchainvm.compiler.records import FOLDER, Records
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.fleet import ALIVE_SECONDS, Registry
from offchainvm.jobs.lookups import Lookups, matching
from offchainvm.jobs.overview import look, spent_lately
from offchainvm.jobs.record import Job, State
from offchainvm.jobs.resolves import Resolves
from offchainvm.near.nonces import known_keys
from offchainvm.remedies import remedy_of
from offchainvm.web.picture import draw
from offchainvm.web.words import FILTERS

PAGE_JOBS = 25
_LAST_PAGE = 100_000
_LONGEST_NAME = 200
_DATA_ID_CHARS = 64
_LOG_CHARS = 64 * 1024


class NotHere(OffchainVMError):
    """There is no such page."""

    code = "not_found"


class Pages:
    """Every page by its path. All raise ``errors.Unavailable`` while Redis is away, and ``NotHere``.

    Args:
        state_dir: where compile workers of this host keep their build logs.
    """

    def __init__(self, redis: Redis, *, state_dir: Path) -> None:
        self._redis = redis
        self._jobs, self._registry, self._resolves = Lookups(redis), Registry(redis), Resolves(redis)
        self._logs = Records(state_dir / FOLDER)
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("offchainvm.web"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters.update(FILTERS)
        self._by_path: dict[str, Callable[[Mapping[str, str]], str]] = {
            "/": self._list,
            "/fleet": self._fleet,
            "/keys": self._keys,
            "/queues": self._queues,
        }

    def answer(self, untrusted_path: str, untrusted_query: Mapping[str, str]) -> str:
        """The HTML of a page."""
        if untrusted_path.startswith("/jobs/"):
            return self._job(untrusted_path.removeprefix("/jobs/"))
        page = self._by_path.get(untrusted_path)
        if page is None:
            raise NotHere("There is no such page.", remedy="The pages are those above.")
        return page(untrusted_query)

    def login(self, *, refused: bool) -> str:
        """The form that asks for the token."""
        return self._render("login", refused=refused)

    def problem(self, error: OffchainVMError) -> str:
        """A page that says what is wrong."""
        title = "Not found" if isinstance(error, NotHere) else "Unavailable" if isinstance(error, Unavailable) else "Error"
        return self._render("problem", title=title, sentence=error.sentence, remedy=error.remedy)

    def _render(self, template: str, **values: Any) -> str:
        return self._templates.get_template(f"{template}.html").render(page=template, version=__version__, **values)

    def _list(self, query: Mapping[str, str]) -> str:
        state, name, number = _state(query.get("state", "")), query.get("find", "").strip()[:_LONGEST_NAME], _number(query.get("page", ""))
        skip = number * PAGE_JOBS
        if name:
            found = matching(self._jobs, name, state, skip + PAGE_JOBS + 1)[skip:]
        else:
            found = self._jobs.list_jobs(state, PAGE_JOBS + 1, skip=skip)
        return self._render("jobs", jobs=found[:PAGE_JOBS], more=len(found) > PAGE_JOBS, number=number, find=name,
                            state=state.value if state else "", states=[one.value for one in State])  # fmt: skip

    def _job(self, data_id: str) -> str:
        job = self._jobs.get(data_id) if len(data_id) == _DATA_ID_CHARS else None
        if job is None:
            raise NotHere("There is no such job.", remedy="It was never accepted, or the time for which its record is kept has passed.")
        history = self._jobs.history(data_id)
        return self._render("job", job=job, history=history, picture=draw(job, history, now=time.time()),
                            remedy=remedy_of(job.untrusted_problem), uses=_uses(job), log=self._log(job))  # fmt: skip

    def _log(self, job: Job) -> str | None:
        return self._logs.newest_log(job.source_key, most_chars=_LOG_CHARS) if job.source_key else None

    def _fleet(self, _query: Mapping[str, str]) -> str:
        return self._render("fleet", sightings=self._registry.sightings(), alive_seconds=ALIVE_SECONDS, now=time.time())

    def _keys(self, _query: Mapping[str, str]) -> str:
        flights = self._resolves.in_flight()
        keys = [(key, [one for one in flights if one.public_key == key.public_key]) for key in known_keys(self._redis)]
        return self._render("keys", keys=keys, now=time.time())

    def _queues(self, _query: Mapping[str, str]) -> str:
        spent_yocto, seconds = spent_lately(self._redis)
        return self._render("queues", overview=look(self._redis), counts=self._jobs.counts(), spent_near=spent_yocto / 10**24,
                            spent_hours=seconds / 3600, rejected=self._jobs.rejected(10))  # fmt: skip


@dataclass(frozen=True)
class _Use:
    name: str
    used: str
    limit: str
    share: float
    clamped: bool


def _uses(job: Job) -> list[_Use]:
    used, limits = job.response.resources_used if job.response else None, job.limits
    if used is None:
        return []
    rows = (
        ("instructions", "max_instructions", used.instructions, limits.max_instructions or 0, "{:,.0f}", 1),
        ("memory", "max_memory_mb", used.memory_bytes, (limits.max_memory_mb or 0) * 2**20, "{:,.1f} MiB", 2**20),
        ("time", "max_execution_seconds", used.time_seconds, limits.max_execution_seconds or 0, "{:,.0f} s", 1),
    )
    return [
        _Use(name, form.format(amount / unit), form.format(limit / unit), min(1.0, amount / limit) if limit else 0.0,
             field in job.limits_clamped)
        for name, field, amount, limit, form, unit in rows
    ]  # fmt: skip


def _state(text: str) -> State | None:
    return State(text) if text in {one.value for one in State} else None


def _number(text: str) -> int:
    return min(int(text), _LAST_PAGE) if text.isascii() and text.isdigit() and len(text) < 9 else 0
