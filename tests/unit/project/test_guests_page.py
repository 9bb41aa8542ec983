"""The guest author's guide knows every status, every limit and every variable that a guest can meet."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from offchainvm.cli.run import EXIT_CODES
from offchainvm.engine.limits import KIB, MIB, CompileLimits, Limits, ModuleLimits
from offchainvm.engine.meter import STACK_BYTES
from offchainvm.engine.wasmtime_engine import WASM_STACK_BYTES
from offchainvm.errors import RETRIES, BuildCode, JobCode, Status
from offchainvm.models import ExecutionResponse, ResourcesUsed
from offchainvm.near.payload import YIELD_PAYLOAD_LIMIT_BYTES, resume_bytes
from offchainvm.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "guests.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The rows of the last table below ``heading`` and above the next one."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ENDS = {"How a run can end": Status, "How a build can end": BuildCode, "How a job can end besides": JobCode}


@pytest.mark.parametrize("heading", ENDS)
def test_every_end_has_its_cause_and_its_remedy(heading: str) -> None:
    told = rows(heading)
    assert [name.strip("`") for name, *_ in told] == [code.value for code in ENDS[heading]]
    assert all(cause and (remedy or name == "`ok`") for name, cause, remedy in told)


@pytest.mark.parametrize("code", RETRIES)
def test_repeats_are_told_as_they_are(code: str) -> None:
    words = f"{['once', 'twice', 'three times'][RETRIES[code].times - 1]} more"
    assert any(name == f"`{code}`" and words in cause for heading in ENDS for name, cause, *_ in rows(heading))


def test_the_sizes_of_a_module_are_those_that_are_checked() -> None:
    assert dict(rows("Limits")) == {f"`{field.name}`": f"{field.default:,}" for field in dataclasses.fields(ModuleLimits)}


def test_the_other_limits_are_told_as_they_are() -> None:
    limits, compiling = Limits(instructions=1, memory_bytes=1, wall_seconds=1), CompileLimits()
    for text in (
        f"{limits.output_bytes // MIB} MiB in the engine",
        f"{limits.stderr_bytes // KIB} KiB are kept",
        f"{STACK_BYTES // MIB} MiB of frames",
        f"{WASM_STACK_BYTES // KIB} KiB of WebAssembly calls",
        f"may take {compiling.wall_seconds:g} s and {compiling.data_bytes // (1024 * MIB)} GiB",
    ):
        assert text in PAGE


@pytest.mark.parametrize(("byte", "pattern"), [(100, r"(\d+)\s+bytes of output fit"), (10, r"(\d+) from 10 to 99"), (9, r"(\d+) below 10")])
def test_the_outputs_that_fit_are_the_longest_that_fit_with_the_largest_metrics(byte: int, pattern: str) -> None:
    (longest,) = re.findall(pattern, PAGE)
    most = Settings()
    used = ResourcesUsed(instructions=most.max_instructions, memory_bytes=most.max_memory_mb * MIB, time_seconds=most.max_execution_seconds)
    sizes = [resume_bytes(ExecutionResponse(success=True, return_value=bytes([byte]) * size, resources_used=used))
             for size in (int(longest), int(longest) + 1)]  # fmt: skip
    assert sizes[0] <= YIELD_PAYLOAD_LIMIT_BYTES < sizes[1]


def test_the_exit_codes_are_those_of_the_command() -> None:
    section = PAGE.partition("\n## Try it before the chain does\n")[2]
    told = dict(re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE))
    assert told.pop("2").startswith("none")
    assert {name: int(code) for code, cell in told.items() for name in re.findall(r"`(\w+)`", cell)} == {
        status.value: code for status, code in EXIT_CODES.items()
    }
