"""What systemd hears from a unit's main process: a real datagram socket at NOTIFY_SOCKET."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Manager:
    """Its ``socket_path`` goes into NOTIFY_SOCKET."""

    def __init__(self, listening: socket.socket, socket_path: Path) -> None:
        self._listening, self.socket_path = listening, str(socket_path)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Every state told so far, in order."""
        while True:
            try:
                self._heard += self._listening.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self._heard


@contextmanager
def manager() -> Iterator[Manager]:
    # A folder of its own: a socket's path may be 107 bytes long at most, and pytest's are longer.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"{folder}/notify")
        listening.setblocking(False)
        yield Manager(listening, Path(folder) / "notify")
