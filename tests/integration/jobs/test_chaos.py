"""Messages lost and doubled, workers dead and frozen, replies lost: each job ends once all the same, by one payload."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from redis import Redis

from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.jobs.record import Claim, Message, Stage, State, Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.jobs.server import new_token
from offchainvm.jobs.single_flight import Builder, Failed, Parked
from offchainvm.jobs.store import Acceptance, JobStore

JOBS = 12


class Chaos:
    """A fleet that does everything wrong that a fleet can do; ``calm`` ends that, so that all jobs must end too."""

    def __init__(self, house: Any, seed: int) -> None:
        self.house, self.random = house, random.Random(seed)
        self.bag: list[Message] = []
        self.frozen: list[Any] = []
        self.payloads: dict[str, set[bytes]] = defaultdict(set)
        self.ended: dict[str, int] = defaultdict(int)
        self.calm = False
        self.transactions = 0

    def chance(self, probability: float) -> bool:
        return not self.calm and self.random.random() < probability

    def step(self) -> None:
        self.bag += self.house.messages()
        action = self.random.choice([self.deliver, self.deliver, self.deliver, self.submit, self.settle, self.wake, self.reconcile])
        action()

    def deliver(self) -> None:
        if not self.bag:
            return
        message = self.bag.pop(self.random.randrange(len(self.bag)))
        if self.chance(0.1):
            return
        if self.chance(0.2):
            self.bag.append(message)
        for data_id in message.data_ids:
            self.claim(data_id, message.stage)

    def claim(self, data_id: str, stage: Stage) -> None:
        dies = self.chance(0.2)
        token = new_token()
        for _ in range(2 if self.chance(0.3) else 1):
            claim = self.house.store.claim(data_id, stage, owner="w", lease_seconds=0 if dies else 60, token=token)
        if claim is None:
            return
        if dies:
            self.frozen.append(lambda: self.work(claim))
        else:
            self.work(claim)

    def work(self, claim: Claim) -> None:
        name = f"s{int(claim.data_id, 16) % 3}"
        failure = None
        if claim.poisoned:
            failure = ("poison", "dead")
        elif self.chance(0.1):
            self.house.store.put_back(claim, delay_seconds=0, note="away", counted=False)
            return
        elif claim.job.stage is Stage.COMPILE:
            entrance = self.house.flight.enter(claim, self.house.source_key(name))
            if isinstance(entrance, Parked):
                return
            if isinstance(entrance, Builder) and self.chance(0.3):
                self.frozen.append(lambda: self.commit(claim, self.house.built(name)))
                self.house.redis.zadd("ovm:running", {claim.data_id: 1}, xx=True)
                return
            if isinstance(entrance, Failed) or self.chance(0.1):
                failure = ("compile_error", "no")
        if claim.job.stage is Stage.COMPILE and failure is None:
            self.commit(claim, self.house.built(name))
        else:
            self.commit(claim, self.house.answer(claim.data_id, f"{self.random.random()}", failure=failure))

    def commit(self, claim: Claim, transition: Any) -> None:
        token = new_token()
        answers = {self.house.store.commit(claim, transition, token=token) for _ in range(2 if self.chance(0.3) else 1)}
        assert len(answers) == 1

    def submit(self) -> None:
        rows = self.house.take(self.random.randint(1, 4), lease=0 if self.chance(0.3) else 60)
        if not rows:
            return
        if self.chance(0.2):
            self.frozen.append(lambda: self.store(rows))
        elif self.chance(0.1):
            self.house.resolves.give_back(rows)
        else:
            self.store(rows)

    def store(self, rows: Any) -> None:
        self.transactions += 1
        tx = self.house.transaction(rows, hash=f"h{self.transactions}", nonce=self.transactions)
        if self.house.resolves.store(tx, rows):
            for row in rows:
                self.payloads[row.data_id].add(row.arguments)

    def settle(self) -> None:
        flights = self.house.resolves.in_flight()
        if not flights:
            return
        tx = self.random.choice(flights)
        if self.chance(0.3):
            self.house.resolves.attempted(tx.hash)
        if self.chance(0.3):
            self.house.resolves.dead(tx.hash, tx.attempts)
            return
        outcomes = [RowOutcome(None) if self.chance(0.3) else RowOutcome(Verdict.ACCEPTED) for _ in tx.data_ids]
        for settled in [self.house.resolves.settle(tx.hash, outcomes) for _ in range(2)]:
            for data_id, outcome in zip(tx.data_ids, outcomes, strict=True):
                self.ended[data_id] += settled and outcome.verdict is not None

    def wake(self) -> None:
        if self.frozen:
            self.frozen.pop(self.random.randrange(len(self.frozen)))()

    def reconcile(self) -> None:
        self.house.reconcile(
            compile=sum(m.stage is Stage.COMPILE for m in self.bag), execute=sum(m.stage is Stage.EXECUTE for m in self.bag)
        )


@pytest.mark.parametrize("seed", range(12))
def test_each_job_ends_once_with_one_payload_whatever_happens(house: Any, seed: int) -> None:
    chaos = Chaos(house, seed)
    ids = [house.accept(number, stage=Stage.COMPILE, repository=f"owner/{number % 4}") for number in range(JOBS)]
    for _ in range(300):
        chaos.step()
    chaos.calm = True
    for _ in range(3000):
        if house.store.counts()["settled"] == JOBS:
            break
        chaos.step()
    assert {house.store.get(data_id).state for data_id in ids} == {State.SETTLED}
    assert {len(chaos.payloads[data_id]) for data_id in ids} == {1}
    assert {chaos.ended[data_id] for data_id in ids} == {1}
    assert house.reports.count() == JOBS
    assert house.redis.keys("ovm:turns:*") == []
    counts = house.store.counts()
    assert {name: counts[name] for name in ("compile", "execute", "running", "parked", "waiting", "taken", "in_flight")} == dict.fromkeys(
        ("compile", "execute", "running", "parked", "waiting", "taken", "in_flight"), 0
    )


def test_a_killed_redis_comes_back_with_its_jobs_and_another_name() -> None:
    with EmbeddedRedis(persistence=True) as server, Redis.from_url(server.url) as client:
        store = JobStore(client)
        task = _task()
        assert store.accept(task, stage=Stage.EXECUTE, limits=task.resource_limits) is Acceptance.NEW
        before = store.server_run_id()
        client.config_set("appendfsync", "always")
        client.set("last", "write")
        server.kill()
        server.start()
        assert store.server_run_id() != before
        assert store.accept(task, stage=Stage.EXECUTE, limits=task.resource_limits) is Acceptance.KNOWN
        assert store.claim(task.data_id, Stage.EXECUTE, owner="w", lease_seconds=60) is not None


def _task() -> Any:
    from offchainvm.models import ExecuteTask

    return ExecuteTask(request_id=1, data_id="ab" * 32, wasm_checksum="c" * 64)
