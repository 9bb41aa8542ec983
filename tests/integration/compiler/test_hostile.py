"""Hostile repositories: each ends with its code and names its limit, and leaves nothing behind; one worker builds them all.

The worker is shared by the file, so each build also shows that the one before it did no harm; the last test is a good build.
"""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from left_behind import left_behind

from offchainvm.compiler.base import BuildEvent, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.logtext import LINE_CHARS
from offchainvm.errors import BuildError
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

LIMITS = BuildLimits(timeout_seconds=90, memory_mb=512, disk_mb=128, source_mb=16, dependencies_mb=64)
LIBRARY = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n[lib]\ncrate-type = ["cdylib"]\n'
Build = Callable[..., BuiltModule]
Publish = Callable[..., str]

# Each probe panics when it gets what a build must not have.
PROBES = r"""
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::process::Command;

fn main() {
    // An address of nobody (RFC 5737): without any route the answer comes at once.
    let error = TcpStream::connect("192.0.2.1:443").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "has a route");
    assert!(UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", "192.0.2.1:53")).is_err(), "sent a datagram");
    assert!("localhost.localdomain:443".to_socket_addrs().is_err(), "resolved a name");
    let interfaces: Vec<_> = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(interfaces, ["lo"], "has an interface");
    for socket in ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"] {
        assert!(fs::metadata(socket).is_err(), "sees {socket}");
    }
    for path in ["/src/x", "/cargo/x", "/conf/x", "/usr/x", "/etc/x", "/x", "/dev/shm/x"] {
        assert!(fs::write(path, "x").is_err(), "wrote {path}");
    }
    assert!(fs::metadata("/out").is_err() && fs::metadata("/mirror").is_err(), "sees another phase's folders");
    let environ: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    for word in ["TOKEN", "SECRET", "PROXY", "proxy", "NEAR", "GIT_"] {
        assert!(!environ.iter().any(|name| name.contains(word)), "sees a variable with {word}");
    }
    let first = fs::read("/proc/1/environ").unwrap_or_default();
    assert!(!String::from_utf8_lossy(&first).to_lowercase().contains("proxy"), "sees a proxy");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t10001"] {
        assert!(status.contains(line), "{line} does not hold");
    }
    let unshared = Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/tmp"]).status();
    assert!(!mounted.map(|s| s.success()).unwrap_or(false), "mounted something");
    assert!(!unshared.map(|s| s.success()).unwrap_or(false), "made a user namespace");
    fs::copy("/bin/sh", "/tmp/sh").unwrap();
    assert!(Command::new("/tmp/sh").args(["-c", "true"]).status().is_err(), "ran a program from /tmp");
}
"""

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
ENDLESS = (
    'fn main() { std::process::Command::new("sh").args(["-c", "trap \'\' TERM INT HUP; while :; do sleep 1; done"]).status().unwrap(); }'
)
EXECUTE = '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { 65532 }\n'
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


@pytest.fixture(scope="module")
def owner() -> str:
    return f"integration-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror")


@pytest.fixture(scope="module")
def builder(state_dir: Path, owner: str, mirror: Path) -> Iterator[SandboxBuilder]:
    image = load_only(["builder_image"]).builder_image
    with SandboxBuilder(image=image, state_dir=state_dir, owner=owner, mirror_url=f"file://{mirror}") as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left(client: DockerClient, owner: str) -> Iterator[None]:
    yield
    assert left_behind(client, owner) == []


@pytest.fixture
def refused(build: Build) -> Callable[..., BuildError]:
    """Build, and give back the error that it must end with."""

    def run(commit_sha: str, **given: object) -> BuildError:
        with pytest.raises(BuildError) as caught:
            build(commit_sha, **{"limits": LIMITS, **given})
        return caught.value

    return run


Refused = Callable[..., BuildError]


def test_a_build_has_no_network_no_rights_and_no_folders_but_its_own(build: Build, publish: Publish) -> None:
    assert build(publish({"build.rs": PROBES}), limits=LIMITS).size > 0


@pytest.mark.parametrize(
    ("files", "limits", "error"),
    [
        pytest.param({"build.rs": FORKS}, replace(LIMITS, processes=64), "too_many_processes: .* 64 processes", id="fork-bomb"),
        pytest.param({"build.rs": MEMORY}, LIMITS, "out_of_memory: .* 512 MiB", id="memory-bomb"),
        pytest.param({"src/lib.rs": HUGE_STATIC}, LIMITS, "out_of_memory: .* 512 MiB", id="huge-static"),
        pytest.param({"build.rs": DISK}, LIMITS, "disk_full: .* 128 MiB", id="disk-fill"),
        pytest.param({"build.rs": INODES}, LIMITS, "disk_full: .* 128 MiB", id="inode-fill"),
        pytest.param({"build.rs": KILL_ALL}, LIMITS, "killed_by_build", id="kill-all"),
        pytest.param({"build.rs": PANIC}, LIMITS, "build_script_failed", id="panic"),
        pytest.param({"build.rs": LINKED_TARGET}, LIMITS, "compile_error", id="target-folder-is-a-link"),
        pytest.param({"build.rs": ENDLESS}, replace(LIMITS, timeout_seconds=6), "timeout: .* within 6 s", id="ignores-sigterm"),
        pytest.param({"src/lib.rs": ENDLESS_CONSTANT}, replace(LIMITS, timeout_seconds=6), "timeout: .* within 6 s", id="endless-constant"),
        pytest.param({"build.rs": ENDLESS}, replace(LIMITS, idle_seconds=3), "no_output: .* for 3 s", id="silent-hang"),
    ],
)
def test_a_build_that_takes_too_much_is_ended_by_the_limit_that_it_names(
    refused: Refused, publish: Publish, files: dict[str, str], limits: BuildLimits, error: str
) -> None:
    assert re.match(error, refused(publish(files), limits=limits).text)


def test_what_a_program_includes_at_compile_time_holds_nothing_of_the_host(
    build: Build, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_AUTH_TOKEN", "t0p-s3cret")
    library = f'{EXECUTE}#[no_mangle]\npub static SEEN: &[u8] = include_bytes!("/proc/self/environ");\n'

    wasm = build(publish({"src/lib.rs": library}), limits=LIMITS).wasm

    assert b"CARGO_MANIFEST_DIR=/src" in wasm
    assert b"t0p-s3cret" not in wasm
    assert b"API_AUTH_TOKEN" not in wasm


def test_countless_warnings_are_cut_and_the_module_is_there(build: Build, publish: Publish) -> None:
    warnings = "".join(f"pub fn f{number}() {{ let unused = 1; }}\n" for number in range(30_000))
    events = list[BuildEvent]()

    built = build(publish({"src/lib.rs": f"{EXECUTE}{warnings}"}), limits=LIMITS, on_event=events.append)

    assert len(events) < 25_000
    assert built.log_path is not None
    assert built.log_path.stat().st_size < 300_000


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


HELPER = {"helper/Cargo.toml": '[package]\nname = "helper"\nversion = "1.0.0"\n', "helper/src/lib.rs": ""}
OTHER_REGISTRY = 'version = 3\n[[package]]\nname = "x"\nversion = "1.0.0"\nsource = "registry+https://registry.invalid/index"\n'
COMMAND = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'


def manifest(dependency: str) -> dict[str, str]:
    return {"Cargo.toml": f"{LIBRARY}[dependencies]\n{dependency}\n"}


@pytest.mark.parametrize(
    ("code", "files", "without"),
    [
        pytest.param("manifest_missing", {}, ("Cargo.toml",), id="no-manifest"),
        pytest.param("manifest_invalid", {"Cargo.toml": "[package\n"}, (), id="broken-manifest"),
        pytest.param("manifest_invalid", {"Cargo.toml": Path("/etc/passwd")}, (), id="linked-manifest"),
        pytest.param("manifest_invalid", manifest('x = { path = "../../etc" }'), (), id="path-outside"),
        pytest.param("manifest_invalid", {"Cargo.toml": f'{COMMAND}members = ["../../tmp"]\n'}, (), id="member-outside"),
        pytest.param("no_artifact", {"Cargo.toml": LIBRARY.replace("cdylib", "rlib")}, (), id="no-module"),
        pytest.param(
            "ambiguous_artifact",
            {"Cargo.toml": COMMAND, "src/bin/a.rs": "fn main(){}", "src/bin/b.rs": "fn main(){}"},
            ("src/lib.rs",),
            id="two-modules",
        ),
        pytest.param("compile_error", {"src/lib.rs": 'pub fn execute() -> i32 { "no" }'}, (), id="type-error"),
        pytest.param("artifact_invalid", {"src/lib.rs": "pub fn nothing() {}"}, (), id="no-entry-point"),
        pytest.param("manifest_invalid", {"Cargo.lock": "version = 9\n"}, (), id="lock-of-the-future"),
        pytest.param("unsupported_source", {"Cargo.lock": OTHER_REGISTRY}, (), id="lock-names-another-registry"),
        pytest.param("unsupported_source", manifest('x = { git = "https://git.invalid/x/y" }'), ("Cargo.lock",), id="git-elsewhere"),
        pytest.param("dependency_not_found", manifest('serde_json = "=99.0.0"'), ("Cargo.lock",), id="no-such-version"),
    ],
)
def test_a_repository_that_cannot_be_built_says_why(
    refused: Refused, publish: Publish, code: str, files: dict[str, str | Path], without: tuple[str, ...]
) -> None:
    assert refused(publish(files, without=without)).code == code


def test_an_outdated_lock_file_is_refused_with_the_way_to_mend_it(refused: Refused, publish: Publish) -> None:
    error = refused(publish({**manifest('helper = { path = "helper" }'), **HELPER}))

    assert error.code == "lockfile_outdated"
    assert "cargo update --workspace" in error.remedy
    assert "Cargo.lock" in error.log_tail or "lock file" in error.log_tail


def test_a_required_lock_file_is_missed_before_anything_is_fetched(refused: Refused, publish: Publish) -> None:
    assert refused(publish(without=("Cargo.lock",)), require_lockfile=True).code == "lockfile_missing"


def test_a_module_over_its_limit_is_not_read(refused: Refused, publish: Publish) -> None:
    error = refused(publish(), limits=replace(LIMITS, module_bytes=100))

    assert error.code == "artifact_too_large"
    assert "100" in error.sentence


def test_a_repository_over_its_limit_is_not_kept(refused: Refused, publish: Publish) -> None:
    commit_sha = publish({"blob": bytes(range(256)) * 4096 * 3}, name="guest")

    assert refused(commit_sha, limits=replace(LIMITS, source_mb=1)).code == "repo_too_large"


def test_what_does_not_exist_is_named(refused: Refused, publish: Publish, mirror: Path) -> None:
    publish()
    git = ["git", "--git-dir", str(mirror / "someone" / "guest.git"), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run([*git, "tag", "-a", "-m", "x", "v1", "main"], check=True)
    tag_sha = subprocess.run([*git, "rev-parse", "v1"], check=True, capture_output=True, text=True).stdout.strip()

    assert refused("0123456789" * 4).code == "commit_not_found"
    assert refused(tag_sha).code == "commit_not_found"
    assert refused("0123456789" * 4, repo="someone/nothing").code == "repo_not_found"


def test_after_all_of_this_the_worker_builds_as_before(build: Build, publish: Publish) -> None:
    """The last test of this file."""
    assert build(publish(), limits=LIMITS).size > 0
