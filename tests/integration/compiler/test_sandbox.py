"""The sandbox itself: reading what a build left."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from offchainvm.cancellation import Cancellation
from offchainvm.compiler import reaper, sandbox
from offchainvm.compiler.archive import NotRegular, TooBig
from offchainvm.compiler.base import BuildEvent, BuildRequest
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.source import parse_source
from offchainvm.errors import Cancelled, Unavailable
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


def run_inside(client: DockerClient, place: sandbox.Sandbox, script: str) -> None:
    """By the user of builds, with the folder that a build writes into."""
    volumes = {place.volume("build"): {"bind": "/build", "mode": "rw"}}
    image = load_only(["builder_image"]).builder_image
    client.containers.run(image, ["sh", "-c", script], user="10001", network_mode="none", volumes=volumes, remove=True)


def test_only_a_regular_file_of_the_right_size_is_read(client: DockerClient, place: sandbox.Sandbox) -> None:
    script = "cd /build; echo content > file; ln -s /etc/passwd link; mkfifo pipe; mkdir folder; truncate -s 3G sparse; ln -s / up"
    run_inside(client, place, script)

    assert place.read_file("/build/file", limit_bytes=100) == b"content\n"
    assert place.read_file("/build/nothing", limit_bytes=100) is None
    for name in ("link", "pipe", "folder"):
        with pytest.raises(NotRegular):
            place.read_file(f"/build/{name}", limit_bytes=100)
    with pytest.raises(TooBig):
        place.read_file("/build/sparse", limit_bytes=2**20)


def test_files_that_were_put_are_read_back(place: sandbox.Sandbox) -> None:
    place.put_files("/build", [("a", b"one"), ("b", b"")])

    assert place.read_file("/build/a", limit_bytes=3) == b"one"
    assert place.read_file("/build/b", limit_bytes=0) == b""


def test_a_folder_is_read_at_once_where_it_holds_files_alone_and_not_too_much(client: DockerClient, place: sandbox.Sandbox) -> None:
    place.put_files("/build", [("a", b"one"), ("b", b"")])

    assert place.read_folder("/build", limit_bytes=3) == {"a": b"one", "b": b""}
    with pytest.raises(TooBig):
        place.read_folder("/build", limit_bytes=2)
    for what in ("ln -s /etc/passwd x", "mkfifo x", "mkdir x"):
        run_inside(client, place, f"cd /build; rm -rf x; {what}")
        with pytest.raises(NotRegular):
            place.read_folder("/build", limit_bytes=100)


def test_limits_that_the_engine_refuses_are_the_operators_trouble(place: sandbox.Sandbox) -> None:
    greedy = sandbox.Phase("greedy", "compile.sh", memory_mb=64, cpus=10_000, processes=8, timeout_seconds=10)

    with pytest.raises(Unavailable, match="COMPILE_CPU_LIMIT"):
        place.run(greedy, print)


def test_a_build_that_nobody_wants_any_more_is_ended_in_its_middle_and_leaves_nothing(
    client: DockerClient, builder: SandboxBuilder, publish: Callable[..., str], mirror: Path, owner: str
) -> None:
    """Until then its containers are of one image, by the engine's own name for it."""
    commit_sha = publish({"build.rs": "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(1)) } }"})
    source = parse_source(
        CodeSource(repo="someone/guest", commit=commit_sha, build_target="wasm32-unknown-unknown"), mirror_url=f"file://{mirror}"
    )
    cancellation, images = Cancellation(), set[str]()

    def when_it_compiles(event: BuildEvent) -> None:
        if "Compiling guest" in event.text:
            running = client.containers.list(filters={"label": f"{reaper.LABEL_OWNER}={owner}"})
            images.update(container.attrs["Config"]["Image"] for container in running)
            threading.Thread(target=cancellation.cancel).start()

    with pytest.raises(Cancelled, match="compile"):
        builder.build(BuildRequest(source, commit_sha), on_event=when_it_compiles, cancellation=cancellation)
    assert images == {client.images.get(load_only(["builder_image"]).builder_image).id}


def test_check_accepts_a_ready_host(builder: SandboxBuilder) -> None:
    builder.check()
