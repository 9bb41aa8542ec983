"""The sandbox itself: reading what a build left."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from offchainvm.cancellation import Cancellation
from offchainvm.compiler import sandbox
from offchainvm.compiler.base import BuildEvent, BuildRequest
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.source import parse_source
from offchainvm.errors import Cancelled
from offchainvm.models import CodeSource
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient


def make_sandbox(client: DockerClient, owner: str, *, timeout_seconds: float = 60) -> sandbox.Sandbox:
    return sandbox.Sandbox(
        client,
        build_id=uuid.uuid4().hex[:16],
        image=load_only(["builder_image"]).builder_image,
        owner=owner,
        runtime="",
        timeout_seconds=timeout_seconds,
        volumes_mb={"build": 8},
        log_bytes=65536,
    )


@pytest.fixture
def place(client: DockerClient, state_dir: Path, owner: str) -> Iterator[sandbox.Sandbox]:
    with make_sandbox(client, owner) as made:
        yield made


def test_only_a_regular_file_of_the_right_size_is_read(client: DockerClient, place: sandbox.Sandbox) -> None:
    script = "cd /build; echo content > file; ln -s /etc/passwd link; mkfifo pipe; mkdir folder; truncate -s 3G sparse; ln -s / up"
    volumes = {place.volume("build"): {"bind": "/build", "mode": "rw"}}
    client.containers.run(
        load_only(["builder_image"]).builder_image, ["sh", "-c", script], user="10001", network_mode="none", volumes=volumes, remove=True
    )

    assert place.read_file("/build/file", limit_bytes=100) == b"content\n"
    assert place.read_file("/build/nothing", limit_bytes=100) is None
    for name in ("link", "pipe", "folder"):
        with pytest.raises(sandbox.NotRegular):
            place.read_file(f"/build/{name}", limit_bytes=100)
    with pytest.raises(sandbox.TooBig):
        place.read_file("/build/sparse", limit_bytes=2**20)


def test_files_that_were_put_are_read_back(place: sandbox.Sandbox) -> None:
    place.put_files("/build", [("a", b"one"), ("b", b"")])

    assert place.read_file("/build/a", limit_bytes=3) == b"one"
    assert place.read_file("/build/b", limit_bytes=0) == b""


def test_a_build_that_nobody_wants_any_more_is_ended_in_its_middle_and_leaves_nothing(
    builder: SandboxBuilder, publish: Callable[..., str], mirror: Path
) -> None:
    commit_sha = publish({"build.rs": "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(1)) } }"})
    source = parse_source(
        CodeSource(repo="someone/guest", commit=commit_sha, build_target="wasm32-unknown-unknown"), mirror_url=f"file://{mirror}"
    )
    cancellation = Cancellation()

    def when_it_compiles(event: BuildEvent) -> None:
        if "Compiling guest" in event.text:
            threading.Thread(target=cancellation.cancel).start()

    with pytest.raises(Cancelled, match="compile"):
        builder.build(BuildRequest(source, commit_sha), on_event=when_it_compiles, cancellation=cancellation)


def test_check_accepts_a_ready_host(builder: SandboxBuilder) -> None:
    builder.check()
