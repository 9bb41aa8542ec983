"""Who cleans up after builds: a dead one's things go, a live one's never."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from build_worker import BuildWorker

from offchainvm.cli import main
from offchainvm.compiler import reaper, sandbox
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.settings import Role, load
from offchainvm.tasks import compile as tasks

if TYPE_CHECKING:
    from docker.client import DockerClient

Plant = Callable[..., str]


@pytest.fixture
def plant(client: DockerClient, owner: str) -> Iterator[Plant]:
    """A volume as a build has it, with other labels where they are given; its name."""
    made = list[str]()

    def run(**changed: str) -> str:
        build_id = uuid.uuid4().hex[:16]
        labels = {
            **reaper.labels(owner, build_id, lifetime_seconds=600),
            **{f"offchainvm.{name}": value for name, value in changed.items()},
        }
        name = f"offchainvm-{build_id}-build"
        client.volumes.create(name, driver="local", driver_opts=sandbox.volume_options(8), labels=labels)
        made.append(build_id)
        return name

    yield run
    for build_id in made:
        reaper.remove_labelled(client, f"{reaper.LABEL_BUILD}={build_id}")


@pytest.fixture
def ended() -> str:
    """The label of a process of this host that is dead, and whose number another one has by now: this one."""
    process = reaper.labels("", "", lifetime_seconds=0)[reaper.LABEL_PROCESS]
    return f"{process.rpartition(' ')[0]} 1"


def test_what_is_over_goes_and_what_lives_stays(client: DockerClient, plant: Plant, owner: str, ended: str) -> None:
    late, dead = plant(deadline="1"), plant(process=ended)
    elsewhere = "01234567-89ab-cdef-0123-456789abcdef pid:[1] 1 1"
    alive = {
        "own": plant(),
        "foreign": plant(process=elsewhere, owner="another-worker"),
        "of an earlier release": plant(process=""),
        "unreadable": plant(deadline="soon", process="x y z"),
    }

    removed = reaper.reap(client)

    assert not set(alive.values()) & set(removed)
    left = {str(volume.name) for volume in client.volumes.list()}
    assert set(alive.values()) <= left
    assert not {late, dead} & left


def test_the_thread_outlives_an_engine_that_is_away(
    client: DockerClient, plant: Plant, ended: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, host = plant(process=ended), os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    asked, original = list[str](), reaper.engine.connect

    def connect() -> DockerClient:
        asked.append(os.environ["DOCKER_HOST"])
        return original()

    monkeypatch.setattr(reaper.engine, "connect", connect)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    periodic = reaper.Reaper(every_seconds=0.01)
    periodic.start()
    periodic.start()
    try:
        wait_until(lambda: len(asked) >= 3)
        assert [thread.name for thread in reaper.threading.enumerate()].count("reaper") == 1
        monkeypatch.setenv("DOCKER_HOST", host)
        wait_until(lambda: name not in [volume.name for volume in client.volumes.list()])
    finally:
        periodic.stop()


def test_a_compile_worker_reaps_as_long_as_it_lives(
    client: DockerClient, plant: Plant, ended: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted after it has cleared away, at its start, what was there."""
    periodic = reaper.Reaper(every_seconds=0.1)
    monkeypatch.setattr(tasks, "_reaper", periodic)
    monkeypatch.setattr(tasks.health, "add_check", lambda *_: None)
    at_start = plant(process=ended)
    environ = {"API_BASE_URL": "http://127.0.0.1:1", "API_AUTH_TOKEN": "token", "STATE_DIR": str(state_dir)}
    try:
        tasks.prepare(None, load([Role.COMPILE], environ=environ))
        assert at_start not in [volume.name for volume in client.volumes.list()]
        later = plant(process=ended)
        wait_until(lambda: later not in [volume.name for volume in client.volumes.list()])
    finally:
        periodic.stop()


def test_doctor_removes_it_and_says_what(plant: Plant, ended: str, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*options: str) -> bool:
        name = plant(process=ended)
        with pytest.raises(SystemExit) as done:
            main(["doctor", "--reap", *options])
        assert not done.value.code
        return name in capsys.readouterr().out

    # Another test's worker may have been quicker: then the next one is ours.
    wait_until(lambda: told("--json"))
    wait_until(told)


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_worker_leaves_what_its_successor_removes(
    client: DockerClient, builder: SandboxBuilder, publish: Callable[..., str], owner: str, start_worker: Callable[..., BuildWorker]
) -> None:
    commit_sha = publish({"build.rs": "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(1)) } }"})
    with start_worker(commit_sha) as worker:
        worker.wait_until_it_compiles()

    filters = {"label": f"{reaper.LABEL_OWNER}={owner}"}
    assert client.volumes.list(filters=filters)
    builder.check()  # as a worker does at its start
    assert not client.volumes.list(filters=filters)
    assert not client.containers.list(all=True, filters=filters, ignore_removed=True)
