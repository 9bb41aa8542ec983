"""Serves the pages over HTTP, by the standard library: few people look, and each look is a handful of calls of Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import parse_qsl, urlsplit

from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.logs import get_logger
from offchainvm.web.access import Access
from offchainvm.web.pages import NotHere, Pages

log = get_logger()

_REQUEST_SECONDS = 10.0
_FORM_BYTES = 4096
_MOST_AT_ONCE = 16
"""Requests under way; who comes then gets 503: strangers must not fill the process with work."""
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
        parts = urlsplit(untrusted_target)
        if self._access.misled(headers.get("host", "")):
            return _plain(421, "This page is for this machine alone: ask for it as localhost.")
        if parts.path == "/style.css":
            return Reply(200, self._style, "text/css; charset=utf-8", (("Cache-Control", "max-age=300"),))
        if self._access.asks and parts.path == "/login":
            return Reply(200, self._pages.login(refused=False))
        if self._access.allows(headers):
            return self._page(parts.path, dict(parse_qsl(parts.query, max_num_fields=20)))
        return _plain(401, "This is not the token.") if "authorization" in headers else _turn_to("/login")

    def _page(self, untrusted_path: str, untrusted_query: Mapping[str, str]) -> Reply:
        try:
            return Reply(200, self._pages.answer(untrusted_path, untrusted_query))
        except OffchainVMError as error:
            status = 404 if isinstance(error, NotHere) else 503 if isinstance(error, Unavailable) else 500
            return Reply(status, self._pages.problem(error))

    def log_in(self, untrusted_form: str) -> Reply:
        """The reply to the form with the token."""
        token = dict(parse_qsl(untrusted_form, max_num_fields=20)).get("token", "")
        if not self._access.knows(token):
            log.warning("Somebody gave a wrong token.", action="refuse_login")
            return Reply(403, self._pages.login(refused=True))
        return _turn_to("/", ("Set-Cookie", self._access.cookie()))


def _plain(status: int, sentence: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status, f"{sentence}\n", "text/plain; charset=utf-8", headers)


def _turn_to(path: str, *headers: tuple[str, str]) -> Reply:
    return Reply(303, "", headers=(("Location", path), *headers))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 the library's signature
        log.debug("A connection broke.", action="serve_page")


class WebServer:
    """A site on a port, served inside ``with``; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(self, site: Site, *, host: str, port: int) -> None:
        self._server = _Server((host, port), partial(_Handler, site, threading.BoundedSemaphore(_MOST_AT_ONCE)))
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

    def __init__(self, site: Site, places: threading.BoundedSemaphore, *connection: object) -> None:
        self._site, self._places = site, places
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(lambda: self._site.get(self.path, self._names()))

    do_HEAD = do_GET  # noqa: N815 the name that http.server looks for

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self.path != "/login" or not size.isdigit() or int(size) > _FORM_BYTES:
            return self._send(_plain(405, "This page only shows.", ("Allow", "GET, HEAD")))
        form = self.rfile.read(int(size)).decode("utf-8", "replace")
        return self._answer(lambda: self._site.log_in(form))

    def _names(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _answer(self, make: Callable[[], Reply]) -> None:
        if not self._places.acquire(blocking=False):
            return self._send(_plain(503, "Too many requests at once.", ("Retry-After", "1")))
        try:
            reply = make()
        except Exception:
            log.exception("A page cannot be shown.", action="serve_page", path=self.path[:200])
            reply = _plain(500, "This page cannot be shown; the log of `offchainvm web` says why.")
        finally:
            self._places.release()
        return self._send(reply)

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
