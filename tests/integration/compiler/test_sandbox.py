"""The sandbox itself: reading what a build left, and cleaning up after a worker that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from offchainvm.compiler import sandbox
from offchainvm.compiler.build import SandboxBuilder
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
    place.put_files("/build", {"a": b"one", "b": b""})

    assert place.read_file("/build/a", limit_bytes=3) == b"one"
    assert place.read_file("/build/b", limit_bytes=0) == b""


def test_the_reaper_takes_what_is_past_its_deadline_only(client: DockerClient, state_dir: Path, owner: str) -> None:
    old, young = make_sandbox(client, owner, timeout_seconds=1), make_sandbox(client, owner)
    old.labels[sandbox.LABEL_DEADLINE] = "1"
    with old, young:
        filters = {"label": f"{sandbox.LABEL_OWNER}={owner}"}
        sandbox.reap(client)
        left = [container.name for container in client.containers.list(filters=filters)]
        assert left == [f"{young.volume('holder')}"]
        assert [volume.name for volume in client.volumes.list(filters=filters)] == [young.volume("build")]


def test_a_killed_worker_leaves_what_its_successor_removes(
    client: DockerClient, builder: SandboxBuilder, publish: Callable[..., str], mirror: Path, owner: str
) -> None:
    commit_sha = publish({"build.rs": "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(1)) } }"})
    program = """
import sys
from pathlib import Path
from offchainvm.compiler import BuildRequest, parse_source
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.models import CodeSource
image, state_dir, owner, mirror, commit = sys.argv[1:]
source = parse_source(CodeSource(repo="someone/guest", commit=commit, build_target="wasm32-unknown-unknown"), mirror_url=mirror)
builder = SandboxBuilder(image=image, state_dir=Path(state_dir), owner=owner, mirror_url=mirror)
builder.build(BuildRequest(source, commit))
"""
    image_name = load_only(["builder_image"]).builder_image
    arguments = [image_name, str(mirror.parent / "state"), owner, f"file://{mirror}", commit_sha]
    worker = subprocess.Popen([sys.executable, "-c", program, *arguments], start_new_session=True)
    filters = {"label": f"{sandbox.LABEL_OWNER}={owner}"}
    try:
        while not any(str(container.name).endswith("-compile") for container in client.containers.list(filters=filters)):
            assert worker.poll() is None
            time.sleep(0.1)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    assert client.volumes.list(filters=filters)
    assert builder.reap(everything_of_owner=True) == 7
    assert not client.volumes.list(filters=filters)


def test_check_accepts_a_ready_host(builder: SandboxBuilder) -> None:
    builder.check()
