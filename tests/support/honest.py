"""An honest program beside the hostile ones: its files must outlive each of them, and the worker must still compile it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

from builds import EXECUTE, LIBRARY, LOCKFILE

from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.phases import COMPILE_ENVIRONMENT
from offchainvm.compiler.sandbox import Phase, Sandbox
from offchainvm.settings import load_only

_TARGET = "wasm32-unknown-unknown"
_SOURCES = {"Cargo.toml": LIBRARY, "Cargo.lock": LOCKFILE, "src/lib.rs": EXECUTE}
_PHASE = Phase(
    "compile", "compile.sh", memory_mb=512, cpus=2, processes=64, timeout_seconds=90,
    writable=("build",), readable=("conf", "src", "cargo"), environment=COMPILE_ENVIRONMENT,
    arguments=("--target", _TARGET, "--manifest-path", "/src/Cargo.toml", "--lib"),
)  # fmt: skip


@contextmanager
def honest_sandbox(builder: SandboxBuilder, owner: str) -> Iterator[Sandbox]:
    """A sandbox of this worker, with the program in it and as long as a file of tests may take."""
    toolchain = resources.files("offchainvm.compiler") / "scripts" / "toolchain.sh"
    with Sandbox(
        builder._connected(), build_id=uuid.uuid4().hex[:16], image=load_only(["builder_image"]).builder_image, owner=owner,
        runtime="", timeout_seconds=3600, volumes_mb={"conf": 8, "src": 8, "cargo": 8, "build": 64}, log_bytes=65536,
    ) as place:  # fmt: skip
        place.put_files("/conf", [("toolchain.sh", toolchain.read_bytes())])
        place.put_files("/src", [(name, text.encode()) for name, text in _SOURCES.items()])
        yield place


def compile_honest(place: Sandbox) -> str:
    """Run the phase in which strangers' code runs, from an empty target folder; the module's hash."""
    result = place.run(_PHASE, lambda line: None)
    assert result.exit_code == 0, result.log_tail
    wasm = place.read_file(f"/build/target/{_TARGET}/release/guest.wasm", limit_bytes=2**20)
    assert wasm is not None
    return hashlib.sha256(wasm).hexdigest()
