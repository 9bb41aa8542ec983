"""A Redis with a replica and a Sentinel that watches both: what a fail-over is tried on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from offchainvm.devnet.embedded_redis import EmbeddedRedis, find_server, free_port
from offchainvm.processes import bound_command

SERVICE = "jobs"
SECONDS = 30


class Fleet:
    """``kill_master`` and the Sentinel makes the replica master, within about two seconds."""

    def __init__(self, master: EmbeddedRedis, replica: EmbeddedRedis, sentinel_port: int) -> None:
        self._master, self._replica, self._sentinel_port = master, replica, sentinel_port
        self.url = f"sentinel://127.0.0.1:1,127.0.0.1:{sentinel_port}/0?service={SERVICE}"

    def kill_master(self) -> None:
        self._master.kill()

    def wait_for_replica(self) -> None:
        """Until Sentinel knows the replica, and it has everything."""
        with Redis(port=self._sentinel_port, decode_responses=True) as sentinel:
            _wait(lambda: sentinel.execute_command("SENTINEL", "CKQUORUM", SERVICE) and sentinel.sentinel_slaves(SERVICE))
        with Redis(port=self._replica.port) as replica:
            _wait(lambda: replica.info("replication").get("master_link_status") == "up")


def _wait(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        master, replica = (stack.enter_context(EmbeddedRedis()) for _ in range(2))
        with Redis(port=master.port) as client:
            client.config_set("repl-diskless-sync-delay", 0)  # else a replica waits five seconds for others to come
        with Redis(port=replica.port) as client:
            client.replicaof("127.0.0.1", master.port)
            # A Sentinel looks for replicas when it starts, and every ten seconds only.
            _wait(lambda: client.info("replication").get("master_link_status") == "up")
        port, configuration = free_port(), folder / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
        )
        command = bound_command([find_server(), str(configuration), "--sentinel"])
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sentinel:
            try:
                made = Fleet(master, replica, port)
                made.wait_for_replica()
                yield made
            finally:
                sentinel.kill()
