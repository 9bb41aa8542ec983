"""Hostile cases: one worker builds those of a file, and must come unharmed out of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builds import SMALL, Build, Refused
from honest import compile_honest
from left_behind import left_behind

from offchainvm.compiler.build import SandboxBuilder
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
def honest_sha256(builder: SandboxBuilder, owner: str) -> str:
    """What comes of an honest program before anything hostile was built."""
    return compile_honest(builder, owner)


@pytest.fixture(autouse=True)
def unharmed(client: DockerClient, builder: SandboxBuilder, owner: str, honest_sha256: str) -> Iterator[None]:
    """After every case an honest program gives the bytes of before, and no container, volume or process is left."""
    yield
    assert compile_honest(builder, owner) == honest_sha256
    assert left_behind(client, owner) == []


@pytest.fixture
def refused(build: Build) -> Refused:
    """Build, and give back the error that it must end with."""

    def run(commit_sha: str, **given: object) -> BuildError:
        with pytest.raises(BuildError) as caught:
            build(commit_sha, **{"limits": SMALL, **given})
        return caught.value

    return run
