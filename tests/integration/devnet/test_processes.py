"""Both services as processes: one ready line, private files, a clean end, and none that outlives its parent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import urllib3

from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.genesis import Keys


def _start(*arguments: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    process = subprocess.Popen([sys.executable, "-m", "offchainvm.devnet", *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def _end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.read() == b"", "one line is all it prints"
    process.stdout.close()
    return process.wait(20)


def test_the_coordinator_writes_its_token_to_a_private_file(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    process, ready = _start("coordinator", "--token-file", str(token_file), "--body-limit-bytes", "1000")
    token = token_file.read_text()
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert token not in json.dumps(ready)
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", ready["url"] + "/health").data == b"OK"
        reply = pool.request("POST", ready["url"] + "/tasks/fail", body=b"x" * 1001, headers={"authorization": f"Bearer {token}"})
        assert reply.status == 413
    assert _end(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_chain_keeps_its_keys_in_a_private_file(tmp_path: Path, number: signal.Signals) -> None:
    keys_file = tmp_path / "keys.json"
    process, ready = _start(
        "chain", "--keys-file", str(keys_file), "--block-time", "0", "--function-call-keys", "3", "--full-access-keys", "1"
    )
    keys = Keys.load(keys_file)
    assert (len(keys.function_call_keys), len(keys.full_access_keys)) == (3, 1)
    assert keys_file.stat().st_mode & 0o777 == 0o600
    assert "ed25519" not in json.dumps(ready)
    client = DevnetClient(ready["rpc_url"], keys)
    assert client.request_execution("o/n", "main", "wasm32-wasip1", None).request_id == 0
    client.close()
    assert _end(process, number) == 0


def test_a_commit_delay_holds_a_transaction_back_and_then_it_is_final(tmp_path: Path) -> None:
    keys_file, delay_seconds = tmp_path / "keys.json", 0.3
    process, ready = _start("chain", "--keys-file", str(keys_file), "--instant", "--commit-delay", str(delay_seconds))
    client = DevnetClient(ready["rpc_url"], Keys.load(keys_file))
    began = time.monotonic()
    sent = client.send_request("o/n", "main", "wasm32-wasip1", None)
    client.rpc("tx", {"tx_hash": sent, "sender_account_id": ready["client_account_id"], "wait_until": "INCLUDED"})
    assert time.monotonic() - began >= delay_seconds
    assert client.control("chain", {})["yields"] == 1
    client.close()
    assert _end(process) == 0


def test_a_service_ends_cleanly_while_polls_are_held(tmp_path: Path) -> None:
    process, ready = _start("coordinator", "--token-file", str(tmp_path / "token"))
    token = (tmp_path / "token").read_text()
    url, shown = ready["url"] + "/tasks/poll?timeout=100", {"authorization": f"Bearer {token}"}
    program = f"import urllib3; print(urllib3.request('GET', {url!r}, headers={shown!r}).status)"
    poll = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with urllib3.PoolManager() as pool:
        while not pool.request("GET", ready["url"] + "/control/tasks").json()["waiting_polls"]:
            pass
    assert _end(process) == 0
    assert poll.communicate(timeout=20)[0] == b"204\n"


def test_services_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'offchainvm.devnet', 'coordinator', '--token-file', r'{tmp_path / 'token'}'],"
        " stdout=subprocess.PIPE)\np.stdout.readline(); print(p.pid, flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdin is not None
    service = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    service.wait(20)
