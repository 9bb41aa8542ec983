"""A builder for unit tests of the rooms above: answers from a table, needs no container engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from offchainvm.cancellation import Cancellation
from offchainvm.compiler.base import Builder, BuildEvent, BuildRequest, BuiltModule, OnEvent, ignore_event
from offchainvm.errors import BuildCode, BuildError, Cancelled

# The smallest module on the `execute` ABI: memory, and an `execute` that answers an empty output.
EMPTY_OUTPUT_MODULE = bytes.fromhex(
    "0061736d0100000001070160027f7f017f030201000503010001071402066d656d6f72790200076578656375746500000a0801060041fcff030b"
)


class FakeBuilder(Builder):
    """Answers each ``owner/name`` with the given module or error; ``requests`` remembers what was asked."""

    def __init__(
        self, answers: Mapping[str, bytes | Exception] | None = None, *, default: bytes | Exception | None = EMPTY_OUTPUT_MODULE
    ) -> None:
        self.answers = dict(answers or {})
        self.default = default
        self.requests: list[BuildRequest] = []

    def build(self, request: BuildRequest, *, on_event: OnEvent = ignore_event, cancellation: Cancellation | None = None) -> BuiltModule:
        self.requests.append(request)
        name = f"{request.source.owner}/{request.source.name}"
        on_event(BuildEvent("compile", f"fake build of {name}"))
        answer = self.answers.get(name, self.default)
        if cancellation is not None and cancellation.cancelled:
            raise Cancelled("The build was ended.")
        if answer is None:
            raise BuildError(BuildCode.REPO_NOT_FOUND, f"The repository {name} does not exist, or is private.")
        if isinstance(answer, Exception):
            raise answer
        sha256 = hashlib.sha256(answer).hexdigest()
        return BuiltModule(
            wasm=answer, sha256=sha256, size=len(answer), seconds=0.0, log_tail="", provenance={"subject": [{"digest": {"sha256": sha256}}]}
        )
