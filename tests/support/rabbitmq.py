"""A real RabbitMQ of one's own: a node on free loopback ports, its files in a folder, nothing left behind."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from offchainvm.devnet.embedded_redis import free_port
from offchainvm.processes import bound_command

PROGRAMS = Path("/usr/lib/rabbitmq/bin")  # Debian's own wrappers change to a system user
START_SECONDS = 60


class Node:
    """One broker; ``kill`` and ``start`` are what a power cut does to it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._epmd_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        name = f"offchainvm-{secrets.token_hex(4)}@localhost"
        (folder / "enabled_plugins").write_text("[].")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # Two processors are shared with the rest of the tests: no busy waiting for messages.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        """Return when it takes connections."""
        command = bound_command([str(PROGRAMS / "rabbitmq-server")])
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_up():
            assert self._process.poll() is None, (self._folder / "output").read_text(errors="replace")
            assert time.monotonic() < deadline, (self._folder / "output").read_text(errors="replace")

    def _is_up(self) -> bool:
        command = self._control("await_startup", "--timeout", "20")
        return subprocess.run(command, env=self._environment, capture_output=True, check=False).returncode == 0

    def queues(self) -> Mapping[str, str]:
        """The type of each queue, by its name."""
        command = self._control("list_queues", "--quiet", "--no-table-headers", "name", "type")
        told = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout
        return {name: kind.rpartition("_")[2] for name, _, kind in (line.partition("\t") for line in told.splitlines())}

    def kill(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        subprocess.run(["epmd", "-port", str(self._epmd_port), "-kill"], env=self._environment, capture_output=True, check=False)

    def _control(self, *words: str) -> list[str]:
        return [str(PROGRAMS / "rabbitmqctl"), *words]


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    """A node that runs; the test is skipped where RabbitMQ is not installed, but for CI."""
    if not (PROGRAMS / "rabbitmq-server").exists() and not os.environ.get("CI"):
        pytest.skip("RabbitMQ is not installed on this machine (Debian: rabbitmq-server)")
    assert shutil.which("epmd"), "RabbitMQ needs Erlang's epmd"
    made = Node(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()
