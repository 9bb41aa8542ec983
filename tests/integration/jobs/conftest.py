"""One house of jobs on an empty Redis, and the short ways through it that most tests begin with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from redis import Redis
from turns import claim_out_of_turn

from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.reconcile import Reconciled, Reconciler
from offchainvm.jobs.record import Claim, Message, Stage, ToExecute, ToResolve
from offchainvm.jobs.reports import Reports
from offchainvm.jobs.resolves import Resolves, Row, Transaction
from offchainvm.jobs.single_flight import Builder, SingleFlight
from offchainvm.jobs.store import Acceptance, JobStore
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits

LIMITS = ResourceLimits(max_instructions=10**10, max_memory_mb=128, max_execution_seconds=60)
SHA, COMMIT, KEY = "5a" * 32, "c0" * 20, "ed25519:operator"


@dataclass
class House:
    """Every part of the room, and a job's way through it in one call each."""

    redis: Redis
    store: JobStore
    resolves: Resolves
    outbox: Outbox
    reports: Reports
    flight: SingleFlight
    reconciler: Reconciler

    @staticmethod
    def data_id(number: int) -> str:
        return f"{number:064x}"

    @staticmethod
    def source_key(name: str = "a") -> str:
        return hashlib.sha256(name.encode()).hexdigest()

    def accept(
        self,
        number: int = 1,
        *,
        stage: Stage = Stage.EXECUTE,
        deadline: int | None = 1000,
        source_key: str | None = None,
        sender: str = "",
        repository: str = "",
    ) -> str:
        task = CompileTask(
            request_id=number,
            data_id=self.data_id(number),
            code_source=CodeSource(repo="https://github.com/a/b", commit="main"),
            input_data="{}",
        )
        assert (
            self.store.accept(
                task,
                stage=stage,
                limits=LIMITS,
                deadline_height=deadline,
                source_key=source_key,
                commit_sha=COMMIT,
                repository=repository,
                sender_id=sender,
            )
            is not Acceptance.SETTLED
        )
        return task.data_id

    def accept_again(self, number: int = 1) -> Acceptance:
        source = CodeSource(repo="https://github.com/a/b", commit="main")
        task = CompileTask(request_id=number, data_id=self.data_id(number), code_source=source, input_data="{}")
        return self.store.accept(task, stage=Stage.EXECUTE, limits=LIMITS)

    def claim(self, data_id: str, stage: Stage = Stage.EXECUTE, *, lease: float = 60, owner: str = "w1") -> Claim:
        return claim_out_of_turn(self.redis, data_id, stage, owner=owner, lease_seconds=lease)

    def answer(self, data_id: str, text: str = "one", *, failure: tuple[str, str] | None = None) -> ToResolve:
        report = ExecutionReport(request_id=int(data_id, 16), success=failure is None, output=text.encode(), execution_time_ms=3)
        response = ExecutionResponse(success=failure is None, return_value=text.encode())
        return ToResolve(arguments=f'{{"{data_id}":"{text}"}}'.encode(), response=response, report=report, build_failure=failure)

    def built(self, name: str = "a") -> ToExecute:
        return ToExecute(source_key=self.source_key(name), commit_sha=COMMIT, module_sha256=SHA, module_size=10)

    def module(self, *, sha256: str, size: int, name: str = "a") -> None:
        """A source whose module is known."""
        self.redis.hset(f"ovm:module:{self.source_key(name)}", mapping={"sha256": sha256, "size": size})

    def waiting(self, number: int = 1, *, deadline: int | None = 1000, text: str = "one") -> str:
        """A job whose payload waits for a signature."""
        data_id = self.accept(number, deadline=deadline)
        assert self.store.commit(self.claim(data_id), self.answer(data_id, text))
        return data_id

    def take(self, count: int = 10, *, lease: float = 60, height: int = 1) -> list[Row]:
        return self.resolves.take(count, lease_seconds=lease, final_height=height)

    def transaction(self, rows: Sequence[Row], *, hash: str = "h1", nonce: int = 7, key: str = KEY) -> Transaction:
        return Transaction(hash, key, nonce, 900, b"\x00signed:" + hash.encode(), tuple(row.data_id for row in rows))

    def signed(self, *numbers: int, hash: str = "h1", nonce: int = 7) -> tuple[Transaction, list[Row]]:
        """One transaction in flight that carries these jobs."""
        for number in numbers:
            self.waiting(number)
        rows = self.take(len(numbers))
        tx = self.transaction(rows, hash=hash, nonce=nonce)
        assert self.resolves.store(tx, rows)
        return tx, rows

    def building(self, number: int = 1, *, name: str = "a", lease: float = 60) -> Claim:
        """The builder of a source."""
        claim = self.claim(self.accept(number, stage=Stage.COMPILE), Stage.COMPILE, lease=lease)
        assert self.flight.enter(claim, self.source_key(name)) == Builder()
        return claim

    def reconcile(self, *, observed: float = 100, lease: float = 60, compile: int = 0, execute: int = 0) -> Reconciled:
        published = {Stage.COMPILE: compile, Stage.EXECUTE: execute}
        return self.reconciler.run(observed_seconds=observed, lease_seconds=lease, published=published)

    def messages(self) -> list[Message]:
        """Everything that was written to the outbox since the last look."""
        messages = self.outbox.read(10_000, 0, "relay-1")
        self.outbox.done([message.entry_id for message in messages])
        return messages

    def sent(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(message.stage.value, message.data_ids) for message in self.messages()]

    def snapshot(self) -> Callable[[], None]:
        """What Redis wrote to its disk; the answer makes it forget everything since."""
        kept = {name: (self.redis.dump(name), max(self.redis.pttl(name), 0)) for name in self.redis.keys("*")}  # type: ignore[union-attr]

        def forget() -> None:
            self.redis.flushall()
            for name, (value, ttl) in kept.items():
                self.redis.restore(name, ttl, value)

        return forget


@pytest.fixture
def house(redis_client: Redis) -> House:
    return House(
        redis=redis_client,
        store=JobStore(redis_client),
        resolves=Resolves(redis_client),
        outbox=Outbox(redis_client),
        reports=Reports(redis_client),
        flight=SingleFlight(redis_client),
        reconciler=Reconciler(redis_client, republish_seconds=0),
    )
