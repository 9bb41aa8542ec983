"""The contract's 1,024-byte rule, written a second time from wire.md and set against ``payload.fit``."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from offchainvm.models import ExecutionResponse, ResourcesUsed
from offchainvm.near.payload import Payload, fit, resume_bytes

DATA_ID = bytes(range(200, 232)).hex()
USUAL = ResourcesUsed(instructions=12_345_678_901, memory_bytes=134_217_728, time_seconds=12)
ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def contract_resume_text(arguments: bytes) -> bytes:
    """What the contract makes of the arguments: serde_json, compact, fields in their order, nulls written out."""
    response = json.loads(arguments)["response"]
    used = response["resources_used"]
    metrics = ",".join(f'"{name}":{used[name]}' for name in ("instructions", "memory_bytes", "time_seconds"))
    value = "null" if response["return_value"] is None else "[" + ",".join(map(str, response["return_value"])) + "]"
    error = "null" if response["error"] is None else '"' + "".join(map(_escaped, response["error"])) + '"'
    flag = "true" if response["success"] else "false"
    return f'{{"success":{flag},"return_value":{value},"error":{error},"resources_used":{{{metrics}}}}}'.encode()


def _escaped(character: str) -> str:
    return ESCAPES.get(character) or (f"\\u{ord(character):04x}" if character < " " else character)


def check(payload: Payload, limit: int = 1024) -> dict[str, Any]:
    """What holds for every payload whatsoever; gives back its response as JSON."""
    text = contract_resume_text(payload.arguments)
    assert len(text) == payload.resume_bytes <= limit
    arguments = json.loads(payload.arguments)
    assert list(arguments) == ["data_id", "response"]
    assert bytes(arguments["data_id"]).hex() == DATA_ID
    assert payload.arguments == json.dumps(arguments, separators=(",", ":"), ensure_ascii=False).encode()
    assert arguments["response"] == payload.response.as_json()
    return dict(arguments["response"])


@pytest.mark.parametrize(("byte", "longest"), [(255, 222), (100, 222), (99, 296), (10, 296), (9, 445), (0, 445)])
def test_longest_output_that_fits_is_sent_and_one_byte_more_is_refused_by_name(byte: int, longest: int) -> None:
    used = ResourcesUsed(instructions=1_234_567, memory_bytes=1_114_112, time_seconds=0)
    assert check(fit(DATA_ID, ExecutionResponse(success=True, return_value=bytes([byte]) * longest, resources_used=used)))["success"]
    # The exact border depends on the digits of the metrics: find it, and see that it lies where wire.md says.
    size = longest
    while check(fit(DATA_ID, ExecutionResponse(success=True, return_value=bytes([byte]) * size, resources_used=used)))["success"]:
        size += 1
    assert size <= longest + 4
    refused = fit(DATA_ID, ExecutionResponse(success=True, return_value=bytes([byte]) * size, resources_used=used)).response
    assert refused.return_value is None
    assert refused.error is not None
    assert refused.error.startswith("output_too_large: ")
    assert f" {size} bytes" in refused.error
    assert " 1024 " in refused.error
    assert refused.resources_used == used


@pytest.mark.parametrize("seed", range(8))
def test_any_output_is_sent_whole_or_refused_by_the_contracts_own_rule(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        output = chance.randbytes(chance.choice([0, 1, 200, 230, 300, 445, 460, chance.randrange(2000)]))
        if chance.random() < 0.5:
            output = bytes(byte % chance.choice([10, 100, 256]) for byte in output)
        used = ResourcesUsed(**{name: chance.choice([0, 9, 10**9, 2**64 - 1]) for name in ResourcesUsed.model_fields})
        response = ExecutionResponse(success=True, return_value=output, resources_used=used)
        plain = json.dumps({"response": response.as_json(), "data_id": []}).encode()
        fits = len(contract_resume_text(plain)) <= 1024
        sent = check(fit(DATA_ID, response))
        assert sent["success"] is fits
        assert sent["return_value"] == (list(output) if fits else None)
        assert resume_bytes(response) == len(contract_resume_text(plain))


ALPHABETS = ["abc ", 'a"\\\n', "\x00\x01\x1f\x7f", "éß", "日本", "🦀𝄞", "a\ud800\udfff", "\u2028e\u0301"]


@pytest.mark.parametrize("seed", range(8))
def test_any_error_text_is_kept_or_cut_at_its_end_on_a_character_boundary(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        alphabet = "".join(chance.sample(ALPHABETS, chance.randrange(1, 5)))
        text = "compile_error: " + "".join(chance.choices(alphabet, k=chance.choice([0, 5, 300, 850, 2000])))
        sent = check(fit(DATA_ID, ExecutionResponse(success=False, error=text, resources_used=USUAL)))["error"]
        whole = text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
        if sent != whole:
            assert sent.endswith("…")
            assert whole.startswith(sent[:-1])
            # Not a character less than need be: with the next one it would be too long.
            longer = ExecutionResponse(success=False, error=whole[: len(sent)] + "…", resources_used=USUAL)
            assert resume_bytes(longer) > 1024


def test_failure_keeps_its_text_when_its_output_is_too_long() -> None:
    sent = check(fit(DATA_ID, ExecutionResponse(success=False, return_value=b"\xff" * 5000, error="trap: unreachable")))
    assert sent["error"] == "trap: unreachable"
    assert sent["return_value"] is None


def test_success_with_a_long_note_keeps_the_output_whole() -> None:
    sent = check(fit(DATA_ID, ExecutionResponse(success=True, return_value=b"answer", error="n" * 3000)))
    assert sent["success"]
    assert bytes(sent["return_value"]) == b"answer"


def test_megabytes_of_output_are_sized_without_building_an_array() -> None:
    response = ExecutionResponse(success=True, return_value=bytes(range(256)) * 4096)
    assert resume_bytes(response) == len(json.dumps(response.as_json(), separators=(",", ":")))
    assert "1048576 bytes" in check(fit(DATA_ID, response))["error"]


def test_the_limit_is_the_chains_and_may_be_another() -> None:
    response = ExecutionResponse(success=True, return_value=b"\xff" * 400)
    assert check(fit(DATA_ID, response, limit_bytes=4096), limit=4096)["success"]
    assert not check(fit(DATA_ID, response, limit_bytes=300), limit=300)["success"]
    with pytest.raises(ValueError, match="no room"):
        fit(DATA_ID, response, limit_bytes=60)


def test_known_answer_is_byte_for_byte_what_the_contract_documents() -> None:
    payload = fit("00" * 31 + "ff", ExecutionResponse(success=True, return_value=b"Hi\x00", resources_used=ResourcesUsed(instructions=5)))
    zeros = ",".join(["0"] * 31)
    assert (
        payload.arguments
        == (
            f'{{"data_id":[{zeros},255],"response":{{"success":true,"return_value":[72,105,0],"error":null,'
            f'"resources_used":{{"instructions":5,"memory_bytes":0,"time_seconds":0}}}}}}'
        ).encode()
    )
