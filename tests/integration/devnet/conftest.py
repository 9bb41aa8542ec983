"""Local services over real HTTP, in a thread of the test, so that a test can also look inside."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from offchainvm.devnet import serve
from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.coordinator import CoordinatorApp
from offchainvm.devnet.genesis import Keys, genesis
from offchainvm.devnet.node import NodeApp

TOKEN = "a-token-of-tests"


class Http:
    """The smallest client: ``status, body = http("POST", "/x", {...})``."""

    def __init__(self, base_url: str, token: str | None = TOKEN) -> None:
        self.base_url = base_url
        self.token = token
        self._pool = urllib3.PoolManager(retries=False)

    def __call__(self, method: str, path: str, value: Any = None, *, raw: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        if self.token is not None:
            headers.setdefault("authorization", f"Bearer {self.token}")
        body = raw
        if value is not None:
            body = json.dumps(value).encode()
            headers.setdefault("content-type", "application/json")
        return self._pool.request(method, self.base_url + path, body=body, headers=headers, redirect=False, timeout=20)

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture
def coordinator_app() -> CoordinatorApp:
    return CoordinatorApp(token=TOKEN)


@pytest.fixture
def coordinator(coordinator_app: CoordinatorApp) -> Iterator[Http]:
    with serve.in_thread(coordinator_app) as url:
        http = Http(url)
        yield http
        http.close()


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys.generate(function_call=1, full_access=1)


@pytest.fixture
def node_app(keys: Keys) -> NodeApp:
    """A chain whose blocks are cut by the test alone (``/control/produce``)."""
    return NodeApp(genesis(keys), keys, block_time_seconds=math.inf, rpc_timeout_seconds=0.2)


@pytest.fixture
def node(node_app: NodeApp) -> Iterator[Http]:
    with serve.in_thread(node_app) as url:
        http = Http(url, token=None)
        yield http
        http.close()


@pytest.fixture
def live(keys: Keys) -> Iterator[DevnetClient]:
    """A client of a chain that runs by itself, 20 ms a block."""
    with serve.in_thread(NodeApp(genesis(keys), keys, block_time_seconds=0.02)) as url:
        client = DevnetClient(url, keys)
        yield client
        client.close()
