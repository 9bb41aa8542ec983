"""``python -m offchainvm.devnet coordinator|chain``: one local service on loopback; prints one line of JSON when ready."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

from offchainvm.devnet.coordinator import BODY_LIMIT_BYTES, CoordinatorApp, CoordinatorSettings
from offchainvm.devnet.keys import write_secret
from offchainvm.devnet.serve import listen, run
from offchainvm.processes import die_with_parent


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m offchainvm.devnet", description=__doc__)
    services = parser.add_subparsers(dest="service", required=True)
    for name, text in (("coordinator", "the local Coordinator"), ("chain", "the local NEAR chain: RPC and block service")):
        service = services.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        service.add_argument("--host", default="127.0.0.1", help="address to listen on")
        service.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
        service.add_argument("--record", type=int, default=10_000, help="requests kept for /control/requests; 0 keeps none")
        service.add_argument("--keep-running", action="store_true", help="do not end with the parent process")
        (_coordinator_arguments if name == "coordinator" else _chain_arguments)(service)
    return parser.parse_args(arguments)


def _coordinator_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token-file", type=Path, required=True, help="file with the API token; written (mode 0600) when absent")
    parser.add_argument("--body-limit-bytes", type=int, default=BODY_LIMIT_BYTES, help="largest body taken")
    parser.add_argument("--lossy-poll", action="store_true", help="lose a task whose poll went away, as the real server does")
    parser.add_argument("--always-compile", action="store_true", help="hand out Compile tasks only, as the first server does")
    parser.add_argument("--execute-with-input", action="store_true", help="Execute tasks carry input_data, as on later servers")


def _chain_arguments(parser: argparse.ArgumentParser) -> None:
    from offchainvm.devnet.genesis import DEFAULT_CONTRACT_ID  # noqa: PLC0415 the Coordinator starts without the chain's libraries

    parser.add_argument("--keys-file", type=Path, required=True, help="JSON file with all accounts and keys; written (0600) when absent")
    parser.add_argument("--block-time", type=float, default=0.6, help="seconds a block; 0 = --instant")
    parser.add_argument("--instant", action="store_true", help="transactions are executed and final at once; blocks are still cut by time")
    parser.add_argument("--commit-delay", type=float, default=0.0, help="with --instant: seconds until a transaction is executed and final")
    parser.add_argument("--function-call-keys", type=int, default=1, help="operator keys restricted to resolve_execution (a new keys file)")
    parser.add_argument("--full-access-keys", type=int, default=0, help="operator keys with full access (a new keys file)")
    parser.add_argument("--contract-id", default=DEFAULT_CONTRACT_ID, help="account of the contract (a new keys file)")
    parser.add_argument("--yield-timeout-blocks", type=int, default=200, help="heights until a request expires")
    parser.add_argument("--event-standard", default="near-offshore", help="standard named in the contract's events")
    parser.add_argument("--rpc-timeout", type=float, default=10.0, help="seconds an RPC call waits for wait_until")


def _coordinator(options: argparse.Namespace) -> tuple[CoordinatorApp, dict[str, Any]]:
    if not options.token_file.exists():
        write_secret(options.token_file, secrets.token_urlsafe(32))
    settings = CoordinatorSettings(
        body_limit_bytes=options.body_limit_bytes,
        lossy_poll=options.lossy_poll,
        always_compile=options.always_compile,
        execute_with_input=options.execute_with_input,
    )
    app = CoordinatorApp(token=options.token_file.read_text().strip(), settings=settings, record_limit=options.record)
    return app, {"token_file": str(options.token_file)}


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT, or the parent's death."""
    options = _arguments(arguments)
    if not options.keep_running:
        die_with_parent(signal.SIGTERM)
    listener = listen(options.port, options.host)
    url = f"http://{options.host}:{listener.getsockname()[1]}"
    ready = {"service": options.service, "url": url, "control_url": f"{url}/control"}
    if options.service == "coordinator":
        app, more = _coordinator(options)
        run(app, listener, {**ready, **more})
        return 0
    from offchainvm.devnet.node import node_from_options  # noqa: PLC0415 the Coordinator starts without the chain's libraries

    node, more = node_from_options(options, url)
    run(node, listener, {**ready, **more})
    return 0


if __name__ == "__main__":
    sys.exit(main())
