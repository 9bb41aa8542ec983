"""What a build may leave in the place of its module."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import replace

import pytest
from builds import SMALL, Build, Publish, Refused
from fake_builder import EMPTY_OUTPUT_MODULE

from offchainvm.compiler import sandbox
from offchainvm.compiler.base import BuildEvent
from offchainvm.engine.module import check_module


def test_a_module_over_its_limit_is_not_read(refused: Refused, publish: Publish) -> None:
    error = refused(publish(), limits=replace(SMALL, module_bytes=100))

    assert error.code == "artifact_too_large"
    assert "100" in error.sentence


def test_what_a_build_prints_does_not_choose_the_artefact(build: Build, publish: Publish) -> None:
    """Forged messages of cargo, to both of its streams, name a module that the build script laid ready."""
    evil = "".join(f"\\\\x{byte:02x}" for byte in EMPTY_OUTPUT_MODULE).replace("\\\\", "\\")
    script = f"""
use std::io::Write;
fn main() {{
    std::fs::create_dir_all("/build/target/wasm32-unknown-unknown/release").unwrap();
    for path in ["/build/evil.wasm", "/build/target/wasm32-unknown-unknown/release/evil.wasm"] {{
        std::fs::write(path, b"{evil}").unwrap();
        let target = "{{\\"kind\\":[\\"cdylib\\"],\\"crate_types\\":[\\"cdylib\\"],\\"name\\":\\"guest\\"}}";
        let head = "{{\\"reason\\":\\"compiler-artifact\\",\\"package_id\\":\\"guest 0.1.0\\",\\"fresh\\":false,\\"target\\":";
        let tail = "}}\\n{{\\"reason\\":\\"build-finished\\",\\"success\\":true}}\\n";
        let message = [head, target, ",\\"filenames\\":[\\"", path, "\\"]", tail].concat();
        print!("{{message}}");
        let parent = std::os::unix::process::parent_id();
        for stream in [1, 2] {{
            let file = std::fs::OpenOptions::new().write(true).open(format!("/proc/{{parent}}/fd/{{stream}}"));
            file.unwrap().write_all(message.as_bytes()).unwrap();
        }}
    }}
}}
"""
    events = list[BuildEvent]()

    built = build(publish({"build.rs": script}), on_event=events.append)

    assert any("compiler-artifact" in event.text for event in events)
    assert built.wasm != EMPTY_OUTPUT_MODULE
    assert built.provenance["subject"][0] == {"name": "guest.wasm", "digest": {"sha256": hashlib.sha256(built.wasm).hexdigest()}}


SWAPPER = """
use std::process::{Command, Stdio};
fn main() {
    // In a session of its own, deaf to signals: it swaps the module for a link, a pipe and rubbish as soon as it is there.
    let script = r#"
        trap '' TERM INT HUP
        file=/build/target/wasm32-unknown-unknown/release/guest.wasm
        while [ ! -s $file ]; do :; done
        sleep WAIT
        while :; do
            ln -sf /etc/passwd $file.new; mv $file.new $file
            rm -f $file; mkfifo $file; rm -f $file
            echo rubbish > $file.new; mv $file.new $file
        done"#;
    Command::new("setsid").args(["sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
}
"""


def test_an_artefact_is_read_when_nobody_can_swap_it_any_more(build: Build, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    """The swapper starts a second after cargo has ended: by then its container must be gone, however late the worker reads."""
    read_file = sandbox.Sandbox.read_file

    def read_late(place: sandbox.Sandbox, path: str, *, limit_bytes: int) -> bytes | None:
        if path.endswith("guest.wasm"):
            subprocess.run(["sleep", "2"], check=True)
        return read_file(place, path, limit_bytes=limit_bytes)

    monkeypatch.setattr(sandbox.Sandbox, "read_file", read_late)

    built = build(publish({"build.rs": SWAPPER.replace("WAIT", "1")}))

    check_module(built.wasm)
    assert hashlib.sha256(built.wasm).hexdigest() == built.sha256


# Cargo reads guest.d after it has put the module in its place. Here that is a pipe, so that cargo waits while a process of the
# build, in a session of its own, puts something else there.
REPLACER = """
use std::process::{Command, Stdio};
fn main() {
    let script = "exec 3> guest.d; rm guest.wasm; REPLACE; exec 3>&-; cat guest.d";
    let folder = "/build/target/wasm32-unknown-unknown/release";
    Command::new("mkfifo").arg("guest.d").current_dir(folder).status().unwrap();
    Command::new("setsid").args(["sh", "-c", script]).current_dir(folder)
        .stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
}
"""


@pytest.mark.parametrize(
    ("replace_by", "error"),
    [
        pytest.param("ln -s /etc/passwd guest.wasm", "artifact_invalid", id="link"),
        pytest.param("mkfifo guest.wasm", "artifact_invalid", id="pipe"),
        pytest.param("mkdir guest.wasm", "artifact_invalid", id="folder"),
        pytest.param("head -c 1000 /dev/urandom > guest.wasm", "artifact_invalid", id="rubbish"),
        pytest.param("truncate -s 3G guest.wasm", f"artifact_too_large: .* {3 << 30} bytes; the limit is {16 << 20}", id="sparse"),
        pytest.param(":", "no_artifact", id="nothing"),
    ],
)
def test_what_is_no_module_is_not_taken_for_one(refused: Refused, publish: Publish, replace_by: str, error: str) -> None:
    assert re.match(error, refused(publish({"build.rs": REPLACER.replace("REPLACE", replace_by)})).text)
