"""Hostile repositories that aim past the build: at git, at the worker's reading, at the next tenant.

Each ends with its code or builds as if nothing were there, and leaves nothing in the engine (the ``owner`` fixture looks).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from offchainvm.compiler import sandbox
from offchainvm.compiler.base import BuildEvent, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.double import EMPTY_OUTPUT_MODULE
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.source import Resolver, parse_source
from offchainvm.engine.module import check_module
from offchainvm.errors import BuildError
from offchainvm.models import CodeSource

LIMITS = BuildLimits(timeout_seconds=90, memory_mb=512, disk_mb=128, source_mb=16, dependencies_mb=64)
Build = Callable[..., BuiltModule]
Publish = Callable[..., str]
# Whoever runs it leaves a mark wherever that may be written, and fails.
EVIL = "#!/bin/sh\nfor folder in /src /cargo /out /build /tmp; do echo x > $folder/was-run; done\nexit 99\n"
UNTOUCHED = """
fn main() {
    for path in ["/src/was-run", "/cargo/was-run", "/build/was-run", "/tmp/was-run"] {
        assert!(std::fs::metadata(path).is_err(), "{path} is there");
    }
}
"""


def git(mirror: Path, *arguments: str, given: bytes = b"", name: str = "guest") -> str:
    person = {f"GIT_{who}_{what}": "x@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "--git-dir", str(mirror / "someone" / f"{name}.git"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, input=given, env={**os.environ, **person}).stdout.decode().strip()


def commit_tree(mirror: Path, tree: bytes, *, literally: bool = False) -> str:
    """A commit of a tree that no honest git would write; over it comes the tree of ``main``."""
    rows = [*git(mirror, "ls-tree", "main").splitlines()]
    if not literally:
        sha = git(mirror, "mktree", "--missing", given="\n".join(rows).encode() + b"\n" + tree)
    else:
        entries = [tree]
        for row in rows:
            mode, _, rest = row.split(" ", 2)
            blob, path = rest.split("\t")
            entries.append(f"{mode.lstrip('0')} {path}\0".encode() + bytes.fromhex(blob))
        sha = git(mirror, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", given=b"".join(entries))
    commit = git(mirror, "commit-tree", "-m", "x", sha)
    git(mirror, "update-ref", "refs/heads/main", commit)
    for path in (mirror / "someone").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return commit


def test_a_tree_that_points_outside_itself_is_refused(build: Build, publish: Publish, mirror: Path) -> None:
    """The other ways to write such a path are in the unit tests."""
    publish({"build.rs": UNTOUCHED})
    blob = git(mirror, "hash-object", "-w", "--stdin", given=EVIL.encode())
    commit_sha = commit_tree(mirror, b"100755 ../was-run\0" + bytes.fromhex(blob), literally=True)

    with pytest.raises(BuildError) as caught:
        build(commit_sha, limits=LIMITS)

    assert caught.value.code == "unsupported_source"
    assert "outside" in caught.value.sentence
    assert build(publish({"build.rs": UNTOUCHED}), limits=LIMITS).size > 0


def test_a_branch_that_moves_after_it_was_resolved_changes_nothing(build: Build, publish: Publish, mirror: Path) -> None:
    publish()
    source = parse_source(CodeSource(repo="someone/guest", commit="main"), mirror_url=f"file://{mirror}")
    commit_sha = Resolver().resolve(source)
    blob = git(mirror, "hash-object", "-w", "--stdin", given=b"panic")
    moved = commit_tree(mirror, f"100644 blob {blob}\tbuild.rs\n".encode())

    built = build(commit_sha, limits=LIMITS)

    assert built.provenance["predicate"]["buildDefinition"]["externalParameters"]["commit"] == commit_sha != moved
    with pytest.raises(BuildError, match="compile_error"):
        build(moved, limits=LIMITS)


def test_submodules_are_not_fetched(build: Build, publish: Publish, mirror: Path) -> None:
    urls = ("ext::sh -c /src/evil.sh", "file:///mirror/someone/other.git", "--upload-pack=/src/evil.sh")
    modules = "".join(f'[submodule "m{n}"]\n\tpath = m{n}\n\turl = {url}\n\tupdate = !/src/evil.sh\n' for n, url in enumerate(urls))
    other = publish(name="other")
    publish({".gitmodules": modules, "evil.sh": EVIL, "build.rs": UNTOUCHED})
    commit_sha = commit_tree(mirror, "".join(f"160000 commit {other}\tm{n}\n" for n in range(3)).encode())
    events = list[BuildEvent]()

    assert build(commit_sha, limits=LIMITS, on_event=events.append).size > 0

    assert any("submodules: they are not fetched" in event.text for event in events)


def test_a_dependency_in_a_submodule_is_missing(build: Build, publish: Publish, mirror: Path) -> None:
    other = publish(name="other")
    manifest = '[package]\nname = "guest"\nversion = "0.1.0"\n[workspace]\n[lib]\ncrate-type = ["cdylib"]\n'
    manifest += '[dependencies]\nhelper = { path = "helper" }\n'
    publish({"Cargo.toml": manifest, ".gitmodules": '[submodule "helper"]\n\tpath = helper\n\turl = https://github.com/someone/other\n'})
    commit_sha = commit_tree(mirror, f"160000 commit {other}\thelper\n".encode())

    with pytest.raises(BuildError) as caught:
        build(commit_sha, limits=LIMITS)

    assert caught.value.code == "manifest_invalid"
    assert "Submodules are not fetched" in caught.value.remedy


def test_no_hook_filter_or_monitor_of_a_repository_runs(build: Build, publish: Publish) -> None:
    """A tree that looks like a bare repository with hooks, and attributes that name filters: all of it stays mere files."""
    config = """[core]
    repositoryformatversion = 0
    bare = false
    worktree = /src
    hooksPath = /src/hooks
    fsmonitor = /src/evil.sh
    sshCommand = /src/evil.sh
    attributesFile = /src/.gitattributes
[filter "evil"]
    smudge = /src/evil.sh
    clean = /src/evil.sh
    process = /src/evil.sh
    required = true
[filter "lfs"]
    smudge = /src/evil.sh
    process = /src/evil.sh
    required = true
[diff "evil"]
    textconv = /src/evil.sh
"""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    hooks = ("post-checkout", "reference-transaction", "fsmonitor-watchman", "post-index-change")
    files = {
        "HEAD": "ref: refs/heads/main\n",
        "objects/x": "",
        "refs/heads/x": "",
        "config": config,
        ".gitconfig": config,
        ".lfsconfig": '[lfs]\n    url = file:///mirror\n[lfs "customtransfer.evil"]\n    path = /src/evil.sh\n',
        ".gitattributes": "* filter=evil diff=evil\n*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "data.bin": pointer,
        "evil.sh": EVIL,
        "build.rs": UNTOUCHED,
        "src/lib.rs": '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { 65532 }\n'
        f'const _: () = assert!(include_bytes!("../data.bin").len() == {len(pointer)});\n',
        **{f"hooks/{hook}": EVIL for hook in hooks},
    }

    assert build(publish(files), limits=LIMITS).size > 0


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

    built = build(publish({"build.rs": script}), limits=LIMITS, on_event=events.append)

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


def test_an_artefact_is_read_when_nobody_can_swap_it_any_more(
    build: Build, publish: Publish, monkeypatch: pytest.MonkeyPatch, builder: SandboxBuilder
) -> None:
    """The swapper starts a second after cargo has ended: by then its container must be gone, however late the worker reads."""
    read_file = sandbox.Sandbox.read_file

    def read_late(place: sandbox.Sandbox, path: str, *, limit_bytes: int) -> bytes | None:
        if path.endswith("guest.wasm"):
            subprocess.run(["sleep", "2"], check=True)
        return read_file(place, path, limit_bytes=limit_bytes)

    monkeypatch.setattr(sandbox.Sandbox, "read_file", read_late)

    built = build(publish({"build.rs": SWAPPER.replace("WAIT", "1")}), limits=LIMITS)

    assert check_module(built.wasm).sha256 == built.sha256


def test_an_artefact_that_is_swapped_while_cargo_runs_is_refused_or_whole(build: Build, publish: Publish) -> None:
    """Without the second's pause the module is what the last swap left: never a link that is followed, nor half a file."""
    commit_sha = publish({"build.rs": SWAPPER.replace("WAIT", "0")})
    outcomes = list[str]()
    try:
        outcomes.append("whole" if check_module(build(commit_sha, limits=LIMITS).wasm) else "")
    except BuildError as error:
        outcomes.append(error.code)
    assert outcomes[0] in {"whole", "artifact_invalid", "no_artifact"}
    assert build(publish(name="good"), repo="someone/good", limits=LIMITS).size > 0


POISON = """
fn main() {
    let config = "[build]\\nrustc-wrapper = \\"/build/evil.sh\\"\\n";
    let target = "/build/target/wasm32-unknown-unknown/release/guest.wasm";
    let mut written = 0;
    let home = ["/build", "/build/home", "/build/home/.cargo", "/build/target"];
    for folder in home.into_iter().chain(["/cargo", "/cargo/registry", "/src", "/conf", "/out", "/tmp"]) {
        let _ = std::fs::create_dir_all(folder);
        for name in ["was-run", "config.toml", "config", "credentials.toml"] {
            written += std::fs::write(format!("{folder}/{name}"), config).is_ok() as usize;
        }
    }
    let _ = std::fs::create_dir_all(std::path::Path::new(target).parent().unwrap());
    let _ = std::fs::write(target, b"poison");
    assert!(written >= 4, "{written}");
}
"""


def test_one_tenant_leaves_nothing_for_the_next(build: Build, publish: Publish) -> None:
    clean = {"build.rs": UNTOUCHED}
    before = build(publish(clean, name="victim"), repo="someone/victim", limits=LIMITS)

    build(publish({"build.rs": POISON}, name="attacker"), repo="someone/attacker", limits=LIMITS)
    after = build(publish(clean, name="victim"), repo="someone/victim", limits=replace(LIMITS, cpus=1.0))

    assert after.wasm == before.wasm
