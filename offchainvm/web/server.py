"""Serves the pages over HTTP, by the standard library: few people look, and each look is a handful of calls of Redis."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.logs import get_logger
from offchainvm.web.access import Access
from offchainvm.web.pages import NotHere, Pages

log = get_logger()

_REQUEST_SECONDS = 10.0
_CONNECTION_SECONDS = 30.0
"""Longest that one connection is held: who sends a byte now and then must not keep its place."""
_FORM_BYTES = 4096
_MOST_FIELDS = 20
_MOST_AT_ONCE = 32
"""Connections, one thread each; who comes then gets 503: strangers must not fill the process with work."""
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_HTML = "text/html; charset=utf-8"
_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


@dataclass(frozen=True)
class Reply:
    """What is answered."""

    status: int
    body: str
    content_type: str = _HTML
    headers: tuple[tuple[str, str], ...] = ()


class Site:
    """From a request to its reply: who may look, then the page."""

    def __init__(self, pages: Pages, access: Access) -> None:
        self._pages, self._access = pages, access
        self._style = files("offchainvm.web").joinpath("style.css").read_text(encoding="utf-8")

    def get(self, untrusted_target: str, headers: Mapping[str, str]) -> Reply:
        """The reply to GET; ``headers`` with names in lower case."""
        try:
            parts = urlsplit(untrusted_target)
            query = _fields(parts.query)
        except ValueError:
            return _plain(400, "This address cannot be read.")
        if self._access.misled(headers.get("host", "")):
            return _plain(421, "This page is for this machine alone: ask for it as localhost.")
        if parts.path == "/style.css":
            return Reply(200, self._style, "text/css; charset=utf-8", (("Cache-Control", "max-age=300"),))
        if self._access.asks and parts.path == "/login":
            return Reply(200, self._pages.login(refused=False))
        if self._access.allows(headers):
            return self._page(parts.path, query)
        return _plain(401, "Wrong token.") if "authorization" in headers else _turn_to("/login")

    def _page(self, untrusted_path: str, untrusted_query: Mapping[str, str]) -> Reply:
        try:
            return Reply(200, self._pages.answer(untrusted_path, untrusted_query))
        except OffchainVMError as error:
            status = 404 if isinstance(error, NotHere) else 503 if isinstance(error, Unavailable) else 500
            return Reply(status, self._pages.problem(error))

    def log_in(self, untrusted_form: str) -> Reply:
        """The reply to the form with the token."""
        try:
            token = _fields(untrusted_form).get("token", "")
        except ValueError:
            return _plain(400, "This form cannot be read.")
        if not self._access.knows(token):
            log.warning("Somebody gave a wrong token.", action="refuse_login")
            return Reply(403, self._pages.login(refused=True))
        return _turn_to("/", ("Set-Cookie", self._access.cookie()))


def _fields(untrusted_text: str) -> dict[str, str]:
    """Raises: ValueError: too many of them, or not of this form."""
    return dict(parse_qsl(untrusted_text, max_num_fields=_MOST_FIELDS))


def _is_size(untrusted_text: str) -> bool:
    return untrusted_text.isascii() and untrusted_text.isdigit() and len(untrusted_text) < 10


def _plain(status: int, sentence: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status, f"{sentence}\n", "text/plain; charset=utf-8", headers)


def _turn_to(path: str, *headers: tuple[str, str]) -> Reply:
    return Reply(303, "", headers=(("Location", path), *headers))


class _Server(ThreadingHTTPServer):
    """A connection a thread, bounded in number and time from the moment it is accepted."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self._accepted_at = dict[socket.socket, float]()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread; one too many is told so, and closed."""
        if len(self._accepted_at) >= _MOST_AT_ONCE:
            with suppress(OSError):
                request.sendall(_BUSY)
            return self.shutdown_request(request)
        self._accepted_at[request] = time.monotonic()
        return super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Between two accepts: end what is held for too long. Its thread meets a closed connection."""
        for request, accepted_at in list(self._accepted_at.items()):
            if time.monotonic() - accepted_at > _CONNECTION_SECONDS:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """The end of every connection."""
        self._accepted_at.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 the library's signature
        log.debug("A connection broke.", action="serve_page")


class WebServer:
    """A site on a port, served inside ``with``; port 0 takes a free one.

    Raises:
        OSError: the address is taken, or not this host's.
    """

    def __init__(self, site: Site, *, host: str, port: int) -> None:
        self._server = _Server((host, port), partial(_Handler, site))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="pages", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_SECONDS
    server_version, sys_version = "offchainvm", ""

    def __init__(self, site: Site, *connection: object) -> None:
        self._site = site
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(lambda: self._site.get(self.path, self._names()))

    do_HEAD = do_GET  # noqa: N815 the name that http.server looks for

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self.path != "/login" or not _is_size(size) or int(size) > _FORM_BYTES:
            return self._send(_plain(405, "This page is read-only.", ("Allow", "GET, HEAD")))
        form = self.rfile.read(int(size)).decode("utf-8", "replace")
        return self._answer(lambda: self._site.log_in(form))

    def _names(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _answer(self, make: Callable[[], Reply]) -> None:
        try:
            reply = make()
        except Exception:
            log.exception("A page cannot be shown.", action="serve_page", path=self.path[:200])
            reply = _plain(500, "This page cannot be shown; the log of `offchainvm web` says why.")
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        body = reply.body.encode("utf-8", "replace")
        own = reply.headers if reply.content_type != _HTML else (*reply.headers, ("Cache-Control", "no-store"))
        self.send_response(reply.status)
        for name, value in (("Content-Type", reply.content_type), ("Content-Length", str(len(body))), *_HEADERS, *own):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: paths hold what people look for."""
