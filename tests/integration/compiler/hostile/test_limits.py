"""What a build may take: each limit ends it with an error of its own, or cuts without ending it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from builds import EXECUTE, NEAR, SMALL, Build, Publish, Refused, near_deadline

from offchainvm.compiler.base import BuildEvent
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.logtext import LINE_CHARS

FORKS = 'fn main() { let mut all = vec![]; loop { all.push(std::process::Command::new("sleep").arg("3").spawn().unwrap()); } }'
MEMORY = "fn main() { let mut all: Vec<Vec<u8>> = vec![]; loop { all.push(vec![1; 16 << 20]); } }"
DISK = """
use std::io::Write;
fn main() {
    let mut file = std::fs::File::create(std::env::var("OUT_DIR").unwrap() + "/x").unwrap();
    loop { file.write_all(&[1; 1 << 20]).unwrap(); }
}
"""
INODES = 'fn main() { let d = std::env::var("OUT_DIR").unwrap(); for i in 0.. { std::fs::File::create(format!("{d}/{i}")).unwrap(); } }'
KILL_ALL = 'fn main() { std::process::Command::new("sh").args(["-c", "kill -9 -1"]).status().unwrap(); }'
SILENT = "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(1)) } }"
HUGE_STATIC = f"{EXECUTE}pub static HUGE: [u8; 900 << 20] = [1; 900 << 20];\n"
ENDLESS_CONSTANT = f"#![allow(long_running_const_eval)]\n{EXECUTE}pub const ENDLESS: u32 = {{ let mut n = 0u32; loop {{ n ^= 1; }} }};\n"
LINKED_TARGET = """
fn main() {
    let folder = "/build/target/wasm32-unknown-unknown/release";
    std::fs::rename(folder, "/build/old").unwrap();
    std::os::unix::fs::symlink("/etc", folder).unwrap();
}
"""
PANIC = 'fn main() { panic!("no") }'


@pytest.mark.parametrize(
    ("files", "limits", "error"),
    [
        pytest.param({"build.rs": FORKS}, replace(SMALL, processes=64), "too_many_processes: .* 64 processes", id="fork-bomb"),
        pytest.param({"build.rs": MEMORY}, SMALL, "out_of_memory: .* 512 MiB", id="memory-bomb"),
        pytest.param({"src/lib.rs": HUGE_STATIC}, SMALL, "out_of_memory: .* 512 MiB", id="huge-static"),
        pytest.param({"build.rs": DISK}, SMALL, "disk_full: .* 128 MiB", id="disk-fill"),
        pytest.param({"build.rs": INODES}, SMALL, "disk_full: .* 128 MiB", id="inode-fill"),
        pytest.param({"build.rs": KILL_ALL}, SMALL, "killed_by_build", id="kill-all"),
        pytest.param({"build.rs": PANIC}, SMALL, "build_script_failed", id="panic"),
        pytest.param({"build.rs": LINKED_TARGET}, SMALL, "compile_error", id="target-folder-is-a-link"),
        pytest.param({"build.rs": SILENT}, replace(SMALL, idle_seconds=3), "no_output: .* for 3 s", id="silent-hang"),
    ],
)
def test_a_build_that_takes_too_much_is_ended_by_the_limit_that_it_names(
    refused: Refused, publish: Publish, files: dict[str, str], limits: BuildLimits, error: str
) -> None:
    assert re.match(error, refused(publish(files), limits=limits).text)


def test_a_constant_without_an_end_is_ended_by_the_deadline(refused: Refused, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    near_deadline(monkeypatch, "compile")

    error = refused(publish({"src/lib.rs": ENDLESS_CONSTANT}), limits=NEAR)

    assert re.match("timeout: .* within 3 s; it was compiling", error.text)


def test_countless_warnings_are_cut_and_the_module_is_there(build: Build, publish: Publish) -> None:
    warnings = "".join(f"pub fn f{number}() {{ let unused = 1; }}\n" for number in range(6_000))
    events = list[BuildEvent]()

    built = build(publish({"src/lib.rs": f"{EXECUTE}{warnings}"}), on_event=events.append)

    assert len(events) < 25_000
    assert built.log_path is not None
    assert built.log_path.stat().st_size < 300_000
    # Not shown any more, and yet kept.
    assert not any("generated 6000 warnings" in event.text for event in events)
    assert "generated 6000 warnings" in built.log_path.read_text()


def test_a_flood_of_log_stays_bounded_and_printable(refused: Refused, publish: Publish) -> None:
    # Cargo keeps a build script's output to itself, so this one writes into cargo's own.
    script = r"""
use std::io::Write;
fn main() {
    let parent = std::os::unix::process::parent_id();
    let mut log = std::fs::OpenOptions::new().write(true).open(format!("/proc/{parent}/fd/2")).unwrap();
    let mut line = b"\x1b[2J\x1b]0;title\x07\xff\xfe\x9b31m".to_vec();
    line.extend(vec![b'x'; 300_000]);
    line.push(b'\n');
    for _ in 0..100 { log.write_all(&line).unwrap(); }
    panic!("\x1b[31mafter the flood");
}
"""
    events = list[BuildEvent]()

    error = refused(publish({"build.rs": script}), on_event=events.append)

    assert error.code == "build_script_failed"
    texts = [event.text for event in events] + error.log_tail.splitlines()
    assert all(len(text) <= LINE_CHARS and text.isprintable() for text in texts)
    assert "after the flood" in error.log_tail
