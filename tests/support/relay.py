"""A way to a service that a test can cut, or let hang."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType


class Relay:
    """Hands each connection to its port on to what ``connect`` opens; a context manager."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.hangs = False
        self._open: list[socket.socket] = []

    def cut(self) -> None:
        """The service is away: nobody listens, and what was open is closed."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for one in (self._listening, *self._open):
            one.close()

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                self._open.append(caller)
                if self.hangs:
                    continue
                service = self._connect()
                self._open.append(service)
                for pair in ((caller, service), (service, caller)):
                    threading.Thread(target=_pour, args=pair, daemon=True).start()


def to_port(port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(("127.0.0.1", port))


def to_unix(path: str) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        service = socket.socket(socket.AF_UNIX)
        service.connect(path)
        return service

    return connect


def _pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
