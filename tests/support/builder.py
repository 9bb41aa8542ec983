"""The real container engine and the real builder image, as every test that builds needs them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from offchainvm.compiler import engine, image
from offchainvm.errors import Unavailable
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient


@contextmanager
def client() -> Iterator[DockerClient]:
    """The engine; a test is skipped where there is none, but for CI."""
    try:
        found = engine.connect()
    except Unavailable:
        if os.environ.get("CI"):
            raise
        pytest.skip("no Docker engine on this machine")
    try:
        yield found
    finally:
        found.close()


def make_image(client: DockerClient, state_dir: Path) -> None:
    """Record the builder image in ``state_dir``, and make it where it is missing: one process of a test run at a time."""
    values = load_only(["docker_image", "builder_image"])
    with Path(tempfile.gettempdir(), "offchainvm-test-builder.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        image.make_image(client, values.builder_image, base_image=values.docker_image, state_dir=state_dir, say=print)
