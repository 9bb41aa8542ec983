"""Serving a local service on loopback: as a process of its own, or in a thread of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from offchainvm.devnet.http import Service


def listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    # asyncio switches Nagle's algorithm off only where the protocol is named: without it a reply takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


class _Server(uvicorn.Server):
    """uvicorn, with our service's start and stop inside its own, and signals that end in exit code 0."""

    def __init__(self, service: Service) -> None:
        # Clients pool their connections for minutes: one closed under them would look like a fault nobody asked for.
        config = uvicorn.Config(
            service, lifespan="off", log_level="warning", access_log=False, ws="none",
            timeout_keep_alive=300, timeout_graceful_shutdown=2, server_header=False,
        )  # fmt: skip
        super().__init__(config)
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.stop()
        await super().shutdown(sockets)


def run(service: Service, listener: socket.socket, ready_line: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT; print ``ready_line`` as one line of JSON when requests are taken."""
    listener.listen(2048)  # from here on the kernel holds connections for us: what is printed is true
    print(json.dumps(ready_line), flush=True)
    _Server(service).run(sockets=[listener])


@contextlib.contextmanager
def in_thread(service: Service, port: int = 0) -> Iterator[str]:
    """Serve in a thread; gives the base URL. For tests that want to look into the service as well."""
    listener = listen(port)
    server = _Server(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="devnet")
    listener.listen(2048)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
