"""A site's own mirror over HTTP: bare repositories for git, a sparse registry of crates made here, and the faults of both.

It listens on the gateway of an internal network of the container engine, which leads nowhere else: what is built through
it was built without the internet. It may be the proxy before another one too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import select
import socket
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from urllib.parse import urlsplit

import builds

SECRET = "m1rr0r-s3cret"
MANIFEST = f'{builds.LIBRARY}[profile.release]\nopt-level = 0\n[dependencies]\nanswer = "1"\n'
LIBRARY = '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { answer::get() }\n'
ANSWER = "pub fn get() -> i32 { 65532 }\n"


def guest(checksum: str) -> dict[str, str]:
    """The files of a program that takes the crate ``answer`` with this checksum."""
    source = 'source = "registry+https://github.com/rust-lang/crates.io-index"'
    crate = f'[[package]]\nname = "answer"\nversion = "1.0.0"\n{source}\nchecksum = "{checksum}"\n'
    return {"Cargo.toml": MANIFEST, "src/lib.rs": LIBRARY, "Cargo.lock": f'{builds.LOCKFILE}dependencies = [\n "answer",\n]\n\n{crate}'}


def make_crate(name: str, version: str, files: dict[str, str], *, links: dict[str, str] | None = None) -> bytes:
    """The bytes of a `.crate` file; symbolic links come before the other files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, to in (links or {}).items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            tar.addfile(entry)
        manifest = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n'
        for path, text in {"Cargo.toml": manifest, **files}.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(archive.getvalue(), mtime=0)


class Mirror:
    """The server; ``requests`` has the path of every request, and what was asked of it as a proxy."""

    def __init__(self, host: str, repositories: Path, *, tls: SSLContext | None = None) -> None:
        self.repositories = repositories
        self.crates: dict[tuple[str, str], bytes] = {}
        self.served: dict[tuple[str, str], bytes] = {}
        """Other bytes for a crate than those of the index."""
        self.faults: dict[str, str] = {}
        """By the start of a path: a status, ``drip`` or ``hang``."""
        self.requests: list[str] = []
        self.behind: Mirror | None = None
        """Whom it leads to as a proxy, whatever host is asked for."""
        self._server = ThreadingHTTPServer((host, 0), type("Handler", (_Handler,), {"mirror": self}))
        self._server.daemon_threads = True
        self.address = f"{host}:{self._server.server_port}"
        self.scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def git_url(self) -> str:
        """With a login, as a private mirror has one."""
        return f"{self.scheme}://builder:{SECRET}@{self.address}/git"

    @property
    def index_url(self) -> str:
        return f"{self.scheme}://builder:{SECRET}@{self.address}/index/"

    def publish(self, name: str, version: str, library: str) -> str:
        """Put a crate of one file into the registry; its checksum."""
        data = make_crate(name, version, {"src/lib.rs": library})
        self.crates[name, version] = data
        return hashlib.sha256(data).hexdigest()

    def index_of(self, name: str) -> list[dict[str, object]]:
        rows = [(version, data) for (crate, version), data in self.crates.items() if crate == name]
        return [
            {"name": name, "vers": version, "deps": [], "cksum": hashlib.sha256(data).hexdigest(), "features": {}, "yanked": False}
            for version, data in rows
        ]


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)

    def do_CONNECT(self) -> None:
        self.mirror.requests.append(f"CONNECT {self.path}")
        assert self.mirror.behind is not None, "is no proxy"
        host, _, port = self.mirror.behind.address.partition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            other = {self.connection: far, far: self.connection}
            while ready := select.select(other, (), (), 60)[0]:
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    other[end].sendall(data)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        self.mirror.requests.append(url.path)
        fault = next((what for start, what in self.mirror.faults.items() if url.path.startswith(start)), "")
        if fault == "hang":
            self.mirror.stopping.wait(60)
            self.close_connection = True
        elif fault == "drip":
            self._drip()
        elif fault:
            self._send(int(fault), b"")
        elif url.path.startswith("/git/"):
            self._git(url.path.removeprefix("/git"), url.query, body)
        else:
            self._registry(url.path)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.close_connection = True
        while not self.mirror.stopping.wait(0.1):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def _registry(self, path: str) -> None:
        parts = path.strip("/").split("/")
        if parts[-1] == "config.json":
            # By the name that the client used: behind a proxy it knows no other.
            host = self.headers["Host"]
            return self._send(200, json.dumps({"dl": f"{self.mirror.scheme}://builder:{SECRET}@{host}/crates"}).encode())
        if parts[0] == "index" and (rows := self.mirror.index_of(parts[-1])):
            return self._send(200, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        if parts[0] == "crates" and len(parts) == 4:
            key = (parts[1], parts[2])
            data = self.mirror.served.get(key) or self.mirror.crates.get(key)
            return self._send(200, data) if data else self._send(404, b"")
        return self._send(404, b"")

    def _git(self, path: str, query: str, body: bytes) -> None:
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.mirror.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_1": "true",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self._send(int(headers.pop("Status", "200")[:3]), content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
