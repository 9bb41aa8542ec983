"""Hostile cases: one worker builds those of a file, and must come unharmed out of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builds import SMALL, Build, Refused
from honest import compile_honest, honest_sandbox
from left_behind import left_behind

from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.sandbox import Sandbox
from offchainvm.errors import BuildError
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient


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


@pytest.fixture(scope="module")
def neighbour(client: DockerClient, builder: SandboxBuilder, owner: str) -> Iterator[Sandbox]:
    """The sandbox of an honest program, there all the time that others are hostile."""
    with honest_sandbox(builder, f"{owner}-neighbour") as place:
        yield place
    assert left_behind(client, f"{owner}-neighbour") == []


@pytest.fixture(scope="module")
def honest_sha256(neighbour: Sandbox) -> str:
    """What comes of it before anything hostile was built."""
    return compile_honest(neighbour)


@pytest.fixture(autouse=True)
def unharmed(client: DockerClient, neighbour: Sandbox, owner: str, honest_sha256: str) -> Iterator[None]:
    """After every case the worker compiles the neighbour to the bytes of before, and no container, volume or process is left."""
    yield
    assert compile_honest(neighbour) == honest_sha256
    assert left_behind(client, owner) == []


@pytest.fixture
def refused(build: Build) -> Refused:
    """Build, and give back the error that it must end with."""

    def run(commit_sha: str, **given: object) -> BuildError:
        with pytest.raises(BuildError) as caught:
            build(commit_sha, **{"limits": SMALL, **given})
        return caught.value

    return run
