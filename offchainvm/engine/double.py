"""A double of the engine, for tests of the rooms above: answers from a table, starts no process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from offchainvm.engine.base import Cancellation, ExecutionRequest, ExecutionResult, Executor
from offchainvm.errors import Status

Answer = bytes | ExecutionResult | Callable[[ExecutionRequest], "bytes | ExecutionResult"]


class FakeExecutor(Executor):
    """Answers by the SHA-256 of the module's bytes, else with ``default``.

    An answer is the output (a success that used 1,000 instructions and 64 KiB), a whole ``ExecutionResult``, or a
    function of the request that gives one of the two. ``requests`` keeps what was asked, as (sha256, request).
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None, *, default: Answer = b"") -> None:
        self.answers: dict[str, Answer] = dict(answers or {})
        self.default = default
        self.requests: list[tuple[str, ExecutionRequest]] = []
        self.closed = False

    def execute(self, module: Path, request: ExecutionRequest, *, cancellation: Cancellation | None = None) -> ExecutionResult:
        sha256 = hashlib.sha256(module.read_bytes()).hexdigest()
        self.requests.append((sha256, request))
        if cancellation is not None and cancellation.cancelled:
            return ExecutionResult(status=Status.CANCELLED, limits=request.limits, module_sha256=sha256, engine="fake")
        answer = self.answers.get(sha256, self.default)
        answer = answer(request) if callable(answer) else answer
        if isinstance(answer, bytes):
            answer = ExecutionResult(
                status=Status.OK, limits=request.limits, stdout=answer, instructions_used=1_000, peak_memory_bytes=65_536, wall_ms=1.0
            )
        return replace(answer, limits=request.limits, module_sha256=sha256, engine=answer.engine or "fake")

    def close(self) -> None:
        self.closed = True
