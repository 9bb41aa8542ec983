"""The local chain, as clients see it that other people wrote and that nobody here may change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from offchainvm.devnet import serve
from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.genesis import Keys, genesis
from offchainvm.devnet.node import NodeApp
from tests.support.strangers import Chain


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    keys = Keys.generate(function_call=1, full_access=1)
    node = NodeApp(genesis(keys), keys, block_time_seconds=0.03, rpc_timeout_seconds=1.5)
    with serve.in_thread(node) as url:
        client = DevnetClient(url, keys)
        yield Chain(url, keys, client)
        client.close()
