"""What tests of builds share: the small limits of a hostile case, its parts, and how the fixtures that build are called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from offchainvm.compiler.base import BuiltModule
from offchainvm.compiler.crates import Allowance, Registry
from offchainvm.compiler.follower import OnLine
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.lockfile import Crate
from offchainvm.compiler.sandbox import Phase, PhaseResult, Sandbox
from offchainvm.errors import BuildError

SMALL = BuildLimits(timeout_seconds=90, memory_mb=512, disk_mb=128, source_mb=16, dependencies_mb=64)
NEAR = replace(SMALL, timeout_seconds=3)
"""For one phase alone: see ``near_deadline``."""
CRATES = "crates"
"""What the worker fetches between two phases."""
PACKAGE = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
LIBRARY = f'{PACKAGE}[lib]\ncrate-type = ["cdylib"]\n'
LOCKFILE = 'version = 3\n\n[[package]]\nname = "guest"\nversion = "0.1.0"\n'
EXECUTE = '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { 65532 }\n'
Build = Callable[..., BuiltModule]
Publish = Callable[..., str]
Refused = Callable[..., BuildError]
# Whoever runs it leaves a mark wherever that may be written, and fails.
EVIL = "#!/bin/sh\nfor folder in /src /cargo /out /build /tmp; do echo x > $folder/was-run; done\nexit 99\n"
UNTOUCHED = """
fn main() {
    for path in ["/src/was-run", "/cargo/was-run", "/build/was-run", "/tmp/was-run"] {
        assert!(std::fs::metadata(path).is_err(), "{path} is there");
    }
}
"""


def near_deadline(monkeypatch: pytest.MonkeyPatch, phase_name: str) -> None:
    """A build by the limits NEAR has their time for this phase alone, and an hour for each of the others."""
    run, fetch = Sandbox.run, Registry.fetch

    def seconds(name: str) -> int:
        return NEAR.timeout_seconds if name == phase_name else 3600

    def run_it(place: Sandbox, phase: Phase, on_line: OnLine) -> PhaseResult:
        return run(place, replace(phase, timeout_seconds=seconds(phase.name)), on_line)

    def fetch_them(registry: Registry, crates: Sequence[Crate], allowance: Allowance) -> Iterator[tuple[Crate, bytes]]:
        return fetch(registry, crates, replace(allowance, deadline=time.monotonic() + seconds(CRATES)))

    monkeypatch.setattr(Sandbox, "run", run_it)
    monkeypatch.setattr(Registry, "fetch", fetch_them)
