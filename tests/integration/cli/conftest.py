"""One stack for the tests that look at one: no builds, so no Docker; the example's prebuilt module is in the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from offchainvm.cli import world
from offchainvm.cli.stack import Stack, StackOptions

# What a caller may have lying around; no process of a stack may see any of it.
HOSTILE = {
    "REDIS_URL": "redis://nowhere.invalid:1",
    "API_AUTH_TOKEN": "callers-own-token",
    "OPERATOR_PRIVATE_KEY": "ed25519:callers-own-key",
    "AWS_SECRET_ACCESS_KEY": "callers-own-cloud",
}


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    example = world.publish_example(folder / "mirror")
    options = StackOptions(
        roles=("bridge", "execute", "resolve"), settings={**example.settings, "TASK_EVENTS": "true"}, redis_persistence=True
    )
    before = dict(os.environ)
    os.environ.update(HOSTILE)
    try:
        with Stack(options, folder=folder / "stack") as running:
            world.upload_prebuilt(running, example)
            yield running
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def settings_file(stack: Stack, tmp_path: Path) -> Path:
    """The settings of all roles of the stack."""
    file = tmp_path / "env"
    stack.environment_file(file)
    return file
