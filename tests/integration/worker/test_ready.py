"""What a worker's /health/ready says while a service is away, or hangs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import builder
import pytest
import urllib3
from relay import Relay, to_port, to_unix
from workers import Worker, wait_until

from offchainvm.devnet import serve
from offchainvm.devnet.coordinator import CoordinatorApp
from offchainvm.devnet.embedded_redis import EmbeddedRedis, free_port
from offchainvm.devnet.genesis import OPERATOR_ID, Keys, genesis
from offchainvm.devnet.node import NodeApp

TOKEN = "a-token-of-tests"
REMEDIES = {"redis": "REDIS_URL", "coordinator": "API_BASE_URL", "rpc": "NEAR_RPC_URL", "docker": "DOCKER_HOST"}
Checks = dict[str, dict[str, str]]


@pytest.fixture
def keys() -> Keys:
    return Keys.generate(function_call=1)


@pytest.fixture
def ways(redis_server: EmbeddedRedis, keys: Keys) -> Iterator[dict[str, Relay]]:
    """A relay to each service that a worker of all roles needs."""
    node, coordinator = NodeApp(genesis(keys), keys, block_time_seconds=0.2), CoordinatorApp(token=TOKEN)
    docker = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    with ExitStack() as stack:
        chain, api = (int(urlsplit(stack.enter_context(serve.in_thread(app))).port or 0) for app in (node, coordinator))
        redis = int(urlsplit(redis_server.url).port or 0)
        targets = {"redis": to_port(redis), "coordinator": to_port(api), "rpc": to_port(chain), "docker": to_unix(docker)}
        relays = {name: stack.enter_context(Relay(target)) for name, target in targets.items()}
        yield relays


@pytest.fixture
def ask(ways: dict[str, Relay], keys: Keys, start: Callable[..., Worker], tmp_path: Path) -> Callable[[], tuple[int, Checks]]:
    """Starts a worker of all roles, and asks it: status, and the checks that are not well."""
    with builder.client() as client:
        builder.make_image(client, tmp_path / "state")
    port = free_port()
    worker = start(
        {
            "REDIS_URL": f"redis://127.0.0.1:{ways['redis'].port}/0",
            "API_BASE_URL": f"http://127.0.0.1:{ways['coordinator'].port}",
            "API_AUTH_TOKEN": TOKEN,
            "NEAR_RPC_URL": f"http://127.0.0.1:{ways['rpc'].port}",
            "OFFCHAINVM_CONTRACT_ID": "offchainvm.devnet",
            "OPERATOR_ACCOUNT_ID": OPERATOR_ID,
            "OPERATOR_PRIVATE_KEY": keys.function_call_keys[0].secret_text,
            "DOCKER_HOST": f"tcp://127.0.0.1:{ways['docker'].port}",
            "METRICS_PORT": str(port),
        },
        "-Q", "compile,execute,resolve", "-c", "1",
    )  # fmt: skip
    worker.wait_for_log("ready.")

    def ask() -> tuple[int, Checks]:
        reply = urllib3.request("GET", f"http://127.0.0.1:{port}/health/ready", timeout=30)
        return reply.status, {check["name"]: check for check in reply.json()["checks"] if not check["ok"]}

    return ask


def test_each_service_that_is_away_is_named_with_its_remedy(ways: dict[str, Relay], ask: Callable[[], tuple[int, Checks]]) -> None:
    wait_until(lambda: ask() == (200, {}), "the first checks to come back, and all to be well")
    for relay in ways.values():
        relay.cut()
    wait_until(lambda: set(ask()[1]) == set(ways), "every service to be missed")
    status, wrong = ask()
    assert status == 503
    for name, setting in REMEDIES.items():
        assert setting in wrong[name]["remedy"], wrong[name]


def test_services_that_hang_are_named_while_the_rest_is_told(ways: dict[str, Relay], ask: Callable[[], tuple[int, Checks]]) -> None:
    for name in ("docker", "rpc"):
        ways[name].hangs = True
    wait_until(lambda: set(ask()[1]) == {"docker", "rpc"}, "the others to be told")
    status, wrong = ask()
    assert status == 503
    assert "has not answered" in wrong["docker"]["detail"]
    assert wrong["docker"]["remedy"]
