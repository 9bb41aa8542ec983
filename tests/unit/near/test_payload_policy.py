"""Whatever a guest or a build says, the local contract takes what ``payload.fit`` makes of it, and refuses what fit would not send."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from offchainvm.devnet.contract import Contract, Panic
from offchainvm.models import ExecutionResponse, ResourcesUsed
from offchainvm.near.payload import fit, resume_bytes

OPERATOR = "operator.devnet"
CASES = 400
"""Of one seed."""
LIMITS = (1024, 1024, 1024, 600, 4096)
METRICS = (0, 9, 10, 12_345_678_901, 2**32, 2**53 + 1, 2**63, 2**64 - 1)
BYTE_CLASSES = (range(10), range(10, 100), range(100, 256), range(256), range(32, 127), (0,), (255,))
CHARACTER_CLASSES = (
    "abc XYZ 019",
    '"\\/',
    "\n\r\t\b\f",
    "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "éß\u07ff",
    "日本\uffff\ufeff",
    "🦀𝄞\U0010ffff",
    "\u2028\u2029\u200d\u0301\u202e",
    "\ud800\udbff\udfff",
)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Chain:
    """The host of one call: what the contract hands to it is kept."""

    max_yield_payload_bytes: int
    predecessor_id: str = OPERATOR
    deposit: int = 0
    timestamp_ns: int = 0
    resumed: list[bytes] = field(default_factory=list)

    def log(self, text: str) -> None: ...

    def yield_resume(self, data_id: bytes, payload: bytes) -> bool:
        self.resumed.append(payload)
        return True


def contract_says(arguments: bytes, limit: int) -> bytes | int:
    """The text that the contract hands to the chain, or its length where the chain refuses it for that."""
    chain: Any = Chain(limit)
    try:
        Contract(owner_id=OPERATOR, operator_id=OPERATOR).resolve_execution(chain, arguments)
    except Panic as panic:
        refused = re.fullmatch(rf"Yield resume payload is (\d+) bytes which exceeds the {limit} byte limit", str(panic))
        if refused is None:
            raise
        return int(refused[1])
    (payload,) = chain.resumed
    return bytes(payload)


def unfitted(response: ExecutionResponse, limit: int) -> bytes | int:
    """What the contract would say of the response as it is."""
    return contract_says(json.dumps({"data_id": [7] * 32, "response": response.as_json()}).encode(), limit)


def fitted(response: ExecutionResponse, limit: int) -> ExecutionResponse:
    """What is sent; fails where the contract or the chain would not take it."""
    payload = fit("07" * 32, response, limit_bytes=limit)
    text = contract_says(payload.arguments, limit)
    assert isinstance(text, bytes), f"the chain refuses {text} bytes: {payload.arguments!r}"
    assert len(text) == payload.resume_bytes
    assert json.loads(text) == payload.response.as_json()
    return payload.response


def metrics_of(chance: random.Random) -> ResourcesUsed:
    return ResourcesUsed(**{name: chance.choice(METRICS) for name in ResourcesUsed.model_fields})


def up_to_the_limit(chance: random.Random, limit: int, taken: int, cost: Callable[[Any], int], pool: Any) -> list[Any]:
    """Items of ``pool`` until little is left of the limit, none, or less than none; seldom far from it."""
    room = limit - taken + chance.choice((-1500, -40, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 40, 1500))
    items = []
    while room > 0:
        items.append(chance.choice(pool))
        room -= cost(items[-1])
    return items


def output_near(chance: random.Random, limit: int, used: ResourcesUsed) -> bytes:
    taken = resume_bytes(ExecutionResponse(success=True, return_value=b"", resources_used=used))
    return bytes(up_to_the_limit(chance, limit, taken, lambda byte: len(str(byte)) + 1, chance.choice(BYTE_CLASSES)))


def text_near(chance: random.Random, limit: int, taken: int) -> str:
    pool = "".join(chance.sample(CHARACTER_CLASSES, chance.randrange(1, 4)))
    cost = {one: len(json.dumps(LONE_SURROGATE.sub("\ufffd", one), ensure_ascii=False).encode()) - 2 for one in pool}
    return "".join(up_to_the_limit(chance, limit, taken, cost.__getitem__, pool))


@pytest.mark.parametrize("seed", range(4))
def test_an_output_arrives_whole_or_as_a_failure_that_names_both_sizes(seed: int) -> None:
    chance = random.Random(seed)
    verdicts = []
    for _ in range(CASES):
        limit, used = chance.choice(LIMITS), metrics_of(chance)
        response = ExecutionResponse(success=True, return_value=output_near(chance, limit, used), resources_used=used)
        said, sent = unfitted(response, limit), fitted(response, limit)
        verdicts.append(sent.success)
        if isinstance(said, bytes):
            assert sent == response
            continue
        size = len(response.return_value or b"")
        assert (sent.success, sent.return_value, sent.resources_used) == (False, None, used)
        assert (
            sent.error == f"output_too_large: the output has {size} bytes and would take {said} bytes of the {limit} that the chain allows"
        )
    assert min(verdicts.count(True), verdicts.count(False)) > CASES // 5, "both sides of the limit were tried"


@pytest.mark.parametrize("seed", range(4))
def test_an_error_text_arrives_whole_or_without_its_end(seed: int) -> None:
    chance = random.Random(seed)
    whole = 0
    for _ in range(CASES):
        limit, used, success = chance.choice(LIMITS), metrics_of(chance), chance.random() < 0.2
        output = None if chance.random() < 0.7 else chance.randbytes(chance.choice((0, 1, 30)))
        bare = ExecutionResponse(success=success, return_value=output, error="", resources_used=used)
        response = bare.model_copy(update={"error": text_near(chance, limit, resume_bytes(bare))})
        sendable = response.model_copy(update={"error": LONE_SURROGATE.sub("\ufffd", response.error or "")})
        sent = fitted(response, limit)
        assert (sent.success, sent.resources_used) == (success, used)
        if isinstance(unfitted(sendable, limit), bytes):
            assert sent == sendable
            whole += 1
        elif sent.error != sendable.error:
            text, kept = sendable.error or "", (sent.error or "")[:-1]
            assert sent.error == kept + "…"
            assert text.startswith(kept)
            longer = sent.model_copy(update={"error": text[: len(kept) + 1] + "…"})
            assert isinstance(unfitted(longer, limit), int), "not a character less than need be"
        if success:
            assert sent.return_value == output, "a note never costs an output"
    assert CASES // 5 < whole < CASES * 4 // 5, "both sides of the limit were tried"
