"""What docs/troubleshoot.md lets people check, doctor finds by itself: each thing is broken here, and its row says so with the remedy.

The first four groups of the page hold every line of the troubleshooting section of the user's document.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import builder
import pytest
from redis import Redis

from offchainvm.bridge.watch import Cursor
from offchainvm.cli import doctor
from offchainvm.cli.checks import CHECKS, clock, fleet
from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.devnet.keys import KeyPair
from offchainvm.engine import probe
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.record import Stage, ToResolve, Verdict
from offchainvm.jobs.resolves import Resolves, RowOutcome, Transaction
from offchainvm.jobs.store import JobStore
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits
from offchainvm.near.nonces import Nonces
from offchainvm.settings import Role

PAGE = Path(__file__).parents[3] / "docs" / "troubleshoot.md"
NOBODY = "http://127.0.0.1:1"
KEY = KeyPair.generate().secret_text


@dataclass
class House:
    """This process' settings, those of a stack that is well; and a Redis of its own for what is broken there."""

    redis: Redis
    redis_url: str
    patch: pytest.MonkeyPatch
    folder: Path

    def set(self, **values: str) -> None:
        for name, value in values.items():
            self.patch.setenv(name, value)

    def use_redis(self) -> Redis:
        self.set(REDIS_URL=self.redis_url)
        return self.redis


def _file_in_the_way(house: House) -> None:
    (house.folder / "file").write_text("")
    house.set(STATE_DIR=str(house.folder / "file" / "below"))


def _spend(house: House) -> None:
    house.use_redis().set(f"ovm:spent:{int(time.time() // 86400)}", 10**16)  # 10,000 NEAR today


def _refuse_a_key(house: House) -> None:
    nonces = Nonces(house.use_redis(), network="devnet", account_id="operator.devnet")
    with nonces.lock("ed25519:public"):
        nonces.disable("ed25519:public", "its allowance is used up")


def _silence_workers(house: House) -> None:
    house.use_redis()  # where no worker is registered
    house.patch.setattr(fleet, "_consumers", dict)


def _leave_the_watch(house: House) -> None:
    house.use_redis().set("ovm:monitor:offchainvm.devnet:cursor", json.dumps(asdict(Cursor(1))))


def _end_at_a_limit(code: str, limits: ResourceLimits, clamped: tuple[str, ...] = ()) -> Callable[[House], None]:
    def settle(house: House) -> None:
        store, resolves, data_id = JobStore(house.use_redis()), Resolves(house.redis), "ab" * 32
        task = CompileTask(request_id=1, data_id=data_id, code_source=CodeSource(repo="a/b", commit="main"), input_data="")
        store.accept(task, stage=Stage.EXECUTE, limits=limits, limits_clamped=clamped)
        claim = store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=60)
        assert claim is not None
        response, report = ExecutionResponse(success=False, error=f"{code}: it ended"), ExecutionReport(request_id=1, success=False)
        assert store.commit(claim, ToResolve(arguments=b"{}", response=response, report=report, module_sha256="5a" * 32))
        rows = resolves.take(1, lease_seconds=60, final_height=1)
        tx = Transaction("hash", "ed25519:public", 1, 1, b"signed", (data_id,))
        assert resolves.store(tx, rows)
        assert resolves.settle(tx.hash, [RowOutcome(Verdict.ACCEPTED)])

    return settle


def _sets(**values: str) -> Callable[[House], None]:
    return lambda house: house.set(**values)


USUAL = ResourceLimits(max_instructions=10**10, max_memory_mb=128, max_execution_seconds=60)
# What the page lets people check: how it is broken here, the row that finds it, and what its remedy names.
BROKEN: dict[str, tuple[Callable[[House], None], str, str]] = {
    "`API_BASE_URL` is correct": (_sets(API_BASE_URL="localhost:8080"), "settings", "API_BASE_URL: must start with http"),
    "the Coordinator runs": (_sets(API_BASE_URL=NOBODY), "Coordinator", "API_BASE_URL"),
    "`API_AUTH_TOKEN` is the Coordinator's": (_sets(API_AUTH_TOKEN="another"), "Coordinator", "API_AUTH_TOKEN"),
    "`OPERATOR_ACCOUNT_ID` is the contract's operator": (
        _sets(OPERATOR_ACCOUNT_ID="client.devnet"), "operator role", "set the operator, or correct OPERATOR_ACCOUNT_ID",
    ),
    "`OPERATOR_PRIVATE_KEY` is valid": (_sets(OPERATOR_PRIVATE_KEY=KEY), "access keys", "correct OPERATOR_PRIVATE_KEY"),
    "the chain accepts what the keys sign": (_refuse_a_key, "held keys", "Correct the key or the setting"),
    "the balance is sufficient": (_spend, "balance", "Top up OPERATOR_ACCOUNT_ID"),
    "the contract id is of this network": (_sets(OFFCHAINVM_CONTRACT_ID="vm.testnet"), "network", "Correct OFFCHAINVM_CONTRACT_ID"),
    "the block service is of this network": (
        _sets(OFFCHAINVM_CONTRACT_ID="vm.testnet", NEARDATA_API_URL="https://mainnet.invalid/b"), "block service", "NEARDATA_API_URL",
    ),
    "the RPC endpoint is responsive": (_sets(NEAR_RPC_URL=NOBODY), "RPC", "NEAR_RPC_URL"),
    "Docker is running": (_sets(DOCKER_HOST="tcp://127.0.0.1:1"), "Docker", "Start Docker"),
    "the image is available": (_sets(BUILDER_IMAGE="no-such-builder"), "builder image", "make builder-image"),
    "disk space is sufficient": (
        lambda house: house.patch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**20)), "disk space", "Make room",
    ),
    "memory is sufficient for a build": (_sets(BUILD_DISK_MB="100000000"), "build memory", "Lower COMPILE_MEMORY_LIMIT_MB"),
    "the repository is accessible": (_sets(SOURCE_MIRROR_URL=NOBODY), "source host", "SOURCE_MIRROR_URL"),
    "the time is long enough": (_end_at_a_limit("timeout", USUAL), "limits", "raise DEFAULT_MAX_EXECUTION_SECONDS"),
    "the program is a release build": (_end_at_a_limit("out_of_fuel", USUAL), "limits", "raise DEFAULT_MAX_INSTRUCTIONS"),
    "limits are not too restrictive": (_end_at_a_limit("memory_limit", USUAL, ("max_memory_mb",)), "limits", "raise MAX_MEMORY_MB"),
    "the engine can run here": (_sets(WASM_RUNTIME="wasmer", WASMER_PYTHON="/no/such/python"), "engines", "Correct WASM_RUNTIME"),
    "guests are confined": (
        lambda house: house.patch.setattr(probe, "open_ways", lambda: ("open files",)), "guest confinement", "allows seccomp",
    ),
    "each queue has a worker": (_silence_workers, "queue execute", "-Q execute"),
    "Redis keeps its data": (House.use_redis, "Redis", "appendonly yes"),
    "the broker keeps its data": (lambda house: house.set(BROKER_URL=house.redis_url), "broker", "appendonly yes"),
    "events arrive": (_leave_the_watch, "event monitor", "offchainvm monitor"),
    "the clock is right": (
        lambda house: house.patch.setattr(clock, "time", SimpleNamespace(time=lambda: time.time() + 120)), "clock", "timedatectl",
    ),
    "nothing is set aside": (lambda house: JobStore(house.use_redis()).reject(b"{}", "no task", None), "set aside", "jobs rejected"),
    "nobody paused the fleet": (lambda house: Pauses(house.use_redis()).pause(), "pause", "offchainvm resume"),
    "journals can be written": (_file_in_the_way, "state folder", "STATE_DIR"),
}  # fmt: skip
TOLD_NOT_JUDGED = {"limits"}
"""What a program does makes no installation wrong."""


@pytest.fixture
def house(redis_client: Redis, redis_server: EmbeddedRedis, settings_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> House:
    monkeypatch.setenv("OFFCHAINVM_ENV_FILE", str(settings_file))
    for name in ("REDIS_URL", "API_AUTH_TOKEN", "OPERATOR_PRIVATE_KEY"):  # what the package's stack fixture set, as a caller's own
        monkeypatch.delenv(name, raising=False)
    return House(redis_client, redis_server.url, monkeypatch, tmp_path)


@pytest.fixture
def row_of() -> Callable[[str], doctor.Row]:
    checks = {name: check for _, name, check in CHECKS}

    def look(name: str) -> doctor.Row:
        return doctor._settings_row([Role.BRIDGE]) if name == "settings" else doctor._row(name, checks[name])

    return look


@pytest.mark.parametrize("what", BROKEN)
def test_what_the_page_lets_people_check_doctor_finds_with_its_remedy(house: House, row_of: Callable[[str], doctor.Row], what: str) -> None:
    break_it, name, remedy = BROKEN[what]
    if name in {"Docker", "builder image", "build memory"}:
        with builder.client() as client:
            builder.make_image(client, house.folder)
            house.set(STATE_DIR=str(house.folder))
    before = row_of(name)
    break_it(house)
    row = row_of(name)
    assert (row.ok is False) is (name not in TOLD_NOT_JUDGED), row
    assert remedy in f"{row.detail} {row.remedy}", row
    assert remedy not in f"{before.detail} {before.remedy}", "it was not so before"


def test_the_page_and_this_file_name_the_same_things() -> None:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = {cell[0]: set(re.findall("`([^`]+)`", cell[1])) for cell in cells if len(cell) == 4 and cell[1] not in ("", "row of doctor")}
    assert set(rows) == set(BROKEN)
    assert {what: name for what, (_, name, _) in BROKEN.items() if name not in rows[what]} == {}
