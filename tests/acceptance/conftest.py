"""Real processes on this machine: Redis, Coordinator, chain, bridge, workers, containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import builder
import pytest
import rabbitmq
from world import World, until

from offchainvm.cli.stack import Stack, StackOptions
from offchainvm.compiler import reaper


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the end of every process's log."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and world is not None:
        for name, process in world.stack.processes.items():
            report.sections.append((f"log of {name}", process.log_tail()))
    return report


@pytest.fixture(scope="session")
def builder_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image that builds run in, made where it is missing."""
    with builder.client() as client:
        builder.make_image(client, tmp_path_factory.mktemp("image"))


@pytest.fixture
def no_sandbox_left(world: World) -> Iterator[None]:
    """Fails the test that leaves a container or volume of a build."""
    yield
    with builder.client() as client:
        filters = {"label": f"{reaper.LABEL_OWNER}={world.stack.worker_id('compile')}"}

        def left() -> list[str]:
            found = [*client.containers.list(all=True, filters=filters, ignore_removed=True), *client.volumes.list(filters=filters)]
            return [item.name for item in found]

        until(lambda: not left(), lambda: f"no container or volume of a build to be left, but there are {left()}")


@pytest.fixture(scope="session")
def make_world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    @contextmanager
    def make(*, settings: Mapping[str, str] | None = None, **options: Any) -> Iterator[World]:
        mirror = tmp_path_factory.mktemp("world") / "mirror"
        mirror.mkdir()
        common = {"SOURCE_MIRROR_URL": f"file://{mirror}", "ENABLE_EVENT_MONITOR": "true", "SCAN_INTERVAL_SECONDS": "0.1"}
        with Stack(StackOptions(settings={**common, **(settings or {})}, **options)) as stack:
            yield World(stack, mirror)

    return make


@pytest.fixture(scope="session")
def rabbitmq_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.Node]:
    with rabbitmq.node(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> dict[str, str]:
    """Each of the brokers, by its one setting: a file of tests that asks for it runs once with each."""
    return {} if request.param == "redis" else {"BROKER_URL": request.getfixturevalue("rabbitmq_node").url}
