"""A bridge as a process: nothing that was polled is lost, whatever dies, and what is wrong is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import systemd
import urllib3

from offchainvm.cli.drain import left
from offchainvm.devnet.embedded_redis import free_port
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.record import Stage


@pytest.fixture
def held(house: Any, wait: Callable[..., Any]) -> Callable[[], None]:
    """Waits until the bridge holds both of its polls."""
    return lambda: wait(lambda: len(house.coordinator._waiters) == 2)


@pytest.fixture
def manager() -> Iterator[systemd.Manager]:
    with systemd.manager() as listening:
        yield listening


def test_a_task_walks_into_its_queue_and_a_signal_ends_the_process_when_its_polls_are_done(
    house: Any, task: Any, wait: Any, held: Any, broker_messages: Any
) -> None:
    bridge = house.start(POLL_TIMEOUT_SECONDS="5")
    held()
    house.coordinator.push(task(1))
    wait(lambda: broker_messages("compile") == [[f"{1:064x}"]])
    job = house.store.get(f"{1:064x}")
    assert job.limits.max_execution_seconds == 60  # the default: the task had none
    house.coordinator.push(b'{"type":"Compile","request_id":77}')
    wait(lambda: any(report["request_id"] == 77 and report["kind"] == "fail" for report in house.coordinator.reports))
    assert house.store.rejected()[0].request_id == 77

    held()
    bridge.process.terminate()
    wait(lambda: bridge.lines("service_stopping"))
    house.coordinator.push(task(2))
    assert bridge.process.wait(20) == 0
    assert f"{2:064x}" in house.job_ids()
    assert house.coordinator.queue == type(house.coordinator.queue)()
    assert "a-token-of-tests" not in bridge.log()


@pytest.mark.parametrize(("fair_share", "order"), [("true", [1, 3, 2]), ("false", [1, 2, 3])])
def test_repositories_take_turns_unless_the_setting_says_first_come_first_served(
    house: Any, task: Any, wait: Any, fair_share: str, order: list[int]
) -> None:
    house.start(FAIR_SHARE=fair_share)
    other = {"type": "GitHub", "repo": "https://github.com/other/one", "commit": "c" * 40}
    for number, changes in ((1, {}), (2, {}), (3, {"code_source": other})):
        house.coordinator.push(task(number, **changes))
        wait(lambda number=number: f"{number:064x}" in house.job_ids())
    claims = [house.store.claim(f"{number:064x}", Stage.COMPILE, owner="w", lease_seconds=60) for number in (1, 2, 3)]
    assert [claim.job.request_id for claim in claims] == order


def test_kill_9_between_journal_and_redis_loses_nothing_and_a_torn_tail_is_no_matter(house: Any, task: Any, wait: Any) -> None:
    dying = house.start(dying="between the journal and Redis")
    house.coordinator.push(task(1))
    assert dying.process.wait(20) == -9
    assert house.job_ids() == set()
    (journal,) = house.journal_files()
    with journal.open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    house.start()
    wait(lambda: house.job_ids() == {f"{1:064x}"})
    assert house.store.history(f"{1:064x}")[0].what == "accepted"


def test_a_redis_that_dies_or_forgets_gets_everything_back(house: Any, task: Any, wait: Any, held: Any) -> None:
    bridge = house.start(POLL_TIMEOUT_SECONDS="20")
    held()
    house.coordinator.push(task(1))
    wait(lambda: house.job_ids() == {f"{1:064x}"})
    held()
    house.redis_server.kill()
    house.coordinator.push(task(2))  # into a poll that is held while Redis is away
    wait(lambda: any("Redis" in line["event"] for line in bridge.lines("service_away")))
    for file in house.redis_server.folder.glob("appendonlydir/*"):
        file.unlink()
    house.redis_server.restart()
    wait(lambda: house.job_ids() == {f"{1:064x}", f"{2:064x}"})
    wait(lambda: bridge.lines("service_back"))
    held()


def test_a_wrong_token_and_a_dead_coordinator_are_said_once_and_recovered_from(house: Any, task: Any, wait: Any) -> None:
    house.fault(kind="drop", path="/tasks/poll", times=0)
    bridge = house.start(API_AUTH_TOKEN="another-token", POLL_CONCURRENCY="1")
    wait(lambda: any("API_BASE_URL" in line["event"] for line in bridge.lines("service_away")))
    house.coordinator.faults.clear()
    wait(lambda: any("API_AUTH_TOKEN" in line["event"] for line in bridge.lines("service_away")))
    house.coordinator.push(task(1))
    house.coordinator._bearer = b"Bearer another-token"
    wait(lambda: house.job_ids() == {f"{1:064x}"})
    told = [line for line in bridge.lines("service_away") if line["service"] == "coordinator"]
    assert len(told) == 2
    assert "another-token" not in bridge.log()
    assert bridge.terminate() == 0


def test_polling_pauses_while_too_much_is_queued(house: Any, task: Any, wait: Any, held: Any) -> None:
    bridge = house.start(QUEUE_HIGH_WATER="2")
    for number in (1, 2, 3):
        house.coordinator.push(task(number))
    wait(lambda: bridge.lines("pause_polling"))
    wait(lambda: {f"{number:064x}" for number in (1, 2)} <= house.job_ids())
    house.redis.delete("ovm:queued:compile")
    wait(lambda: bridge.lines("resume_polling"))
    held()


def test_a_pause_outlives_the_bridge_and_a_resume_needs_no_restart(house: Any, task: Any, wait: Any) -> None:
    pauses = Pauses(house.store._redis)
    pauses.pause()
    house.start().kill()
    bridge = house.start()
    wait(lambda: bridge.lines("pause_polling"))
    assert pauses.polls() == 0
    house.coordinator.push(task(1))
    pauses.resume()
    wait(lambda: house.job_ids() == {f"{1:064x}"})
    assert [line["action"] for line in bridge.lines("pause_polling") + bridge.lines("resume_polling")] == [
        "pause_polling",
        "resume_polling",
    ]


def test_systemd_is_told_when_it_works_and_when_it_stops(house: Any, wait: Any, manager: systemd.Manager) -> None:
    bridge = house.start(NOTIFY_SOCKET=manager.socket_path)
    wait(lambda: manager.heard()[:2] == ["READY=1", "WATCHDOG=1"])
    assert bridge.terminate() == 0
    assert manager.heard()[-1] == "STOPPING=1"


def test_settings_that_do_not_hold_are_all_named(tmp_path: Any) -> None:
    environment = {"PATH": os.environ["PATH"], "OFFCHAINVM_ENV_FILE": "", "STATE_DIR": str(tmp_path)}
    for command, missing in (("bridge", ["API_BASE_URL", "API_AUTH_TOKEN", "NEAR_RPC_URL"]), ("monitor", ["OFFCHAINVM_CONTRACT_ID"])):
        done = subprocess.run(
            [sys.executable, "-m", "offchainvm", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert all(name in done.stderr for name in missing)
        assert "Traceback" not in done.stderr


def test_a_drain_is_not_over_while_a_task_is_only_in_a_journal(house: Any, task: Any, wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    undecided = {"ALLOW_SENDERS": "alice.near", "WORKER_ID": "b"}  # the chain cannot be asked for the sender
    bridge = house.start(**undecided)
    house.coordinator.push(task(1))
    wait(lambda: bridge.lines("decide_task_later"))
    Pauses(house.redis).pause()
    wait(lambda: left(house.redis) == {"journalled": 1})
    bridge.kill()
    seconds, _ = house.redis.time()
    monkeypatch.setattr(house.redis, "time", lambda: (seconds + 600, 0))  # its polls are over as well
    assert left(house.redis) == {"vanished bridges": 1}
    monkeypatch.undo()
    house.redis.delete("ovm:polls")
    house.start(**undecided)
    wait(lambda: left(house.redis) == {"journalled": 1})
    house.bridges[-1].terminate()
    assert left(house.redis) == {"journalled": 1}, "it stopped as it should, and has it still"
    house.start(WORKER_ID="b")
    wait(lambda: house.job_ids() == {f"{1:064x}"})
    wait(lambda: "journalled" not in left(house.redis))


def test_a_bridge_is_not_ready_while_a_service_is_away_and_says_which(house: Any, wait: Any) -> None:
    port = free_port()
    house.start(METRICS_PORT=str(port), ENABLE_EVENT_MONITOR="true", NEARDATA_API_URL="http://127.0.0.1:1/v0/block")

    def wrong() -> dict[str, str]:
        try:
            reply = urllib3.request("GET", f"http://127.0.0.1:{port}/health/ready", timeout=30, retries=False)
        except urllib3.exceptions.HTTPError:  # it does not listen yet
            return {}
        return {check["name"]: check["remedy"] for check in reply.json()["checks"] if not check["ok"]}

    wait(lambda: set(wrong()) == {"rpc", "block service"})
    assert "NEAR_RPC_URL" in wrong()["rpc"]
    assert "NEARDATA_API_URL" in wrong()["block service"]
    house.fault(kind="drop", path="/health", times=0)
    house.redis_server.kill()
    told = wait(lambda: found if {"coordinator", "redis"} <= set(found := wrong()) else None)
    assert "API_BASE_URL" in told["coordinator"]
    assert "REDIS_URL" in told["redis"]
