"""What the settler does with each thing that a node can say of a transaction."""

from __future__ import annotations

from typing import Any

import pytest
from settling import KEY, FakeRpc, World, failed, pending, succeeded

from offchainvm import metrics
from offchainvm.jobs.record import Verdict
from offchainvm.jobs.resolves import RowOutcome
from offchainvm.near.nonces import UNTIL_EMPTY
from offchainvm.near.rpc import AccessKey, RpcRefused, RpcUnavailable


def test_a_success_settles_and_tells(world: World) -> None:
    world.resolves.add()
    world.turn()
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    assert world.resolves.settled == {"h1": [RowOutcome(Verdict.ACCEPTED)]}
    assert world.told == 1


def test_the_way_of_a_transaction_and_of_its_jobs_is_measured_when_it_is_final(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict[str, list[float]]()
    for series in (metrics.RESOLVE_SECONDS, metrics.JOB_SECONDS):
        monkeypatch.setattr(series, "observe", lambda seconds, name=series.name: seen.setdefault(name, []).append(round(seconds)))
    world.resolves.add(jobs=("a", "b"))
    world.turn()
    world.rpc.answers["h1"] = failed("no such method", index=1)
    world.turn()
    assert seen == {"offchainvm_resolve_seconds": [2]}  # both rows wait again: no job has ended
    world.resolves.add("h2")
    world.turn()
    world.rpc.answers["h2"] = succeeded()
    world.turn()
    assert seen == {"offchainvm_resolve_seconds": [2, 2], "offchainvm_job_seconds": [30]}


def test_while_rows_wait_one_look_at_the_nonces_frees_the_slots_of_all_and_each_is_looked_up_when_it_may_be_final(world: World) -> None:
    world.resolves.waiting = 1
    for number in range(8):
        world.resolves.add(f"h{number}", nonce=5 + number)
        world.rpc.answers[f"h{number}"] = succeeded()
    world.turn(0)
    world.turn(0.2)
    assert (world.rpc.calls, world.resolves.settled) == (["key_nonces"], {})
    world.rpc.key = AccessKey(nonce=8, block_height=100, full_access=False)
    world.turn(0.15)
    assert (world.rpc.calls, world.resolves.included_hashes) == (["key_nonces"] * 2, ["h0", "h1", "h2", "h3"])
    world.resolves.waiting = 0
    world.rpc.calls.clear()
    for number in range(4, 8):
        del world.rpc.answers[f"h{number}"]
    world.turn(0.35)
    assert list(world.resolves.settled) == ["h0", "h1", "h2", "h3"]
    # One look at the first of those that are still on their way serves all four.
    assert world.rpc.calls == ["tx"] * 5


def test_while_nobody_waits_for_a_slot_each_is_looked_up_once_when_it_should_be_final(world: World) -> None:
    for turn in range(20):
        world.resolves.add(f"h{turn}", nonce=5 + turn)
        world.turn(0)
        world.rpc.answers[f"h{turn}"] = succeeded()
        for _ in range(10):
            world.turn(0.05)
    assert len(world.resolves.settled) == 20
    assert world.rpc.calls == ["tx"] * 20


def test_what_a_block_takes_later_than_believed_final_is_not_looked_up_before_that(world: World) -> None:
    world.resolves.waiting = 1
    world.resolves.add("h0", nonce=5)
    world.turn(0)
    world.rpc.key = AccessKey(nonce=5, block_height=100, full_access=False)
    world.turn(0.6)
    world.rpc.answers["h0"] = succeeded()
    world.turn(0.5)
    assert list(world.resolves.settled) == ["h0"]
    world.resolves.waiting = 0
    world.resolves.add("h1", nonce=6)
    world.rpc.calls.clear()
    world.turn(0)
    world.turn(0.5)
    assert world.rpc.calls == []
    world.turn(0.2)
    assert world.rpc.calls == ["tx"]


def test_one_that_is_on_its_way_tells_how_long_the_others_take(world: World) -> None:
    for number in range(5):
        world.resolves.add(f"h{number}", nonce=5 + number)
        world.rpc.answers[f"h{number}"] = pending()
        world.turn(0.3)
    while len(world.resolves.settled) < 5:
        world.turn(0.1)
        world.rpc.answers.update({f"h{number}": succeeded() for number in range(5) if world.now >= 1000.3 + 0.3 * number + 1.8})
    assert len(world.rpc.calls) <= 15


def test_a_node_that_does_not_tell_the_nonces_delays_and_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.rpc, "key_nonces", lambda *_: {}["no such answer"])
    world.resolves.waiting = 1
    world.resolves.add()
    world.rpc.answers["h1"] = succeeded()
    world.turn(0)
    world.turn(0.3)
    assert world.resolves.settled == {}
    world.turn(0.2)
    assert list(world.resolves.settled) == ["h1"]


def test_pending_is_looked_at_again_and_never_sent(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = pending()
    for _ in range(5):
        world.turn()
    assert (world.rpc.sent, world.resolves.settled) == ([], {})


def test_a_transaction_that_a_block_holds_frees_its_slot_once_and_is_watched_on(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = pending()
    for _ in range(3):
        world.turn()
    assert (world.resolves.included_hashes, list(world.resolves.flights)) == (["h1"], ["h1"])
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    assert list(world.resolves.settled) == ["h1"]


def test_a_node_that_does_not_track_the_shard_gets_the_same_bytes_again(world: World) -> None:
    world.resolves.add()
    world.rpc.answers["h1"] = {"final_execution_status": "NONE"}
    world.turn(0)
    world.turn()
    assert world.rpc.sent == [b"h1"]
    assert world.resolves.dead_hashes == []


def test_unknown_gets_the_same_bytes_every_few_seconds_lowest_nonce_first(world: World) -> None:
    world.resolves.add("high", nonce=9)
    world.resolves.add("low", nonce=5)
    world.turn(0)
    world.turn(1.0)
    assert world.rpc.sent == []
    world.turn(1.5)
    world.turn(0.5)
    assert world.rpc.sent == [b"low", b"high"]
    world.turn(3.0)
    assert world.rpc.sent == [b"low", b"high"] * 2
    assert world.resolves.flights["low"].attempts == 3


def test_one_that_is_looked_up_later_is_sent_before_the_higher_nonce_that_would_kill_it(world: World) -> None:
    world.resolves.add("low", nonce=5)
    world.resolves.add("high", nonce=9)
    world.turn(0)
    world.settler._watches["low"].for_end.put_off(world.now + 60)
    world.turn()
    world.turn()
    assert world.rpc.sent == [b"low", b"high"] * 2


def test_what_was_stored_and_never_sent_is_sent_soon(world: World) -> None:
    world.resolves.add(attempts=0)
    world.turn(0)
    world.turn(0.7)
    assert world.rpc.sent == [b"h1"]


def test_a_transaction_that_is_not_in_flight_any_more_is_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.resolves.add()
    world.turn(0)
    monkeypatch.setattr(world.resolves, "attempted", lambda _hash: 0)
    world.turn()
    assert world.rpc.sent == []


def test_a_chain_that_is_away_changes_nothing_and_comes_back(world: World) -> None:
    world.resolves.add()
    world.turn(0)
    world.rpc.away = True
    for _ in range(3):
        world.turn()
    assert (world.rpc.sent, world.resolves.dead_hashes, world.resolves.settled) == ([], [], {})
    world.rpc.away = False
    world.rpc.answers["h1"] = succeeded()
    world.turn()
    world.turn()
    assert "h1" in world.resolves.settled


@pytest.mark.parametrize("earlier", [RpcRefused("what?", cause="PARSE_ERROR"), RuntimeError("what nobody thought of")])
def test_one_that_cannot_be_judged_keeps_no_other_from_its_turn(world: World, earlier: Exception) -> None:
    world.resolves.add("h1", nonce=5)
    world.resolves.add("h2", nonce=6, jobs=("other",))
    world.resolves.earlier["job"] = ["h0"]
    world.rpc.answers.update(h0=earlier, h1=failed("Unable to resume execution promise"), h2=succeeded())
    world.turn()
    world.turn()
    assert list(world.resolves.settled) == ["h2"]
    world.rpc.answers["h0"] = succeeded()
    world.turn(6)
    assert world.resolves.settled["h1"] == [RowOutcome(Verdict.ACCEPTED)]


def test_an_answer_that_cannot_be_read_is_no_statement(world: World) -> None:
    world.resolves.add("h1", nonce=5)
    world.resolves.add("h2", nonce=6)
    world.rpc.answers.update(h1=RuntimeError("what nobody thought of"), h2=succeeded())
    world.turn()
    world.turn()
    assert (list(world.resolves.settled), world.resolves.dead_hashes) == (["h2"], [])


def test_a_failed_batch_blames_one_row(world: World) -> None:
    world.resolves.add(jobs=("a", "b", "c"))
    world.rpc.answers["h1"] = failed("Smart contract panicked: Only operator can call this", index=1)
    world.turn(0)
    world.turn()
    first, blamed, last = world.resolves.settled["h1"]
    assert first == last == RowOutcome(None)
    assert blamed.verdict is Verdict.REFUSED
    assert (blamed.error or "").startswith("only_operator: ")


UNABLE = failed("Smart contract panicked: Unable to resume execution promise")


def test_a_row_that_failed_for_an_unknown_reason_beside_others_is_judged_when_it_went_alone(world: World) -> None:
    world.resolves.add("h1", jobs=("a", "b"))
    world.rpc.answers["h1"] = failed("Something new", index=1)
    world.turn(0)
    world.turn()
    assert [(row.verdict, row.error) for row in world.resolves.settled["h1"]] == [(None, None), (None, "contract_error: Something new")]
    world.resolves.add("h2", jobs=("b",))
    world.rpc.answers["h2"] = failed("Something new")
    world.turn()
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h2"]] == [Verdict.REFUSED]


@pytest.mark.parametrize(
    ("earlier", "head", "verdict"),
    [
        (None, 150, Verdict.RESOLVED_ELSEWHERE),
        (None, 199, Verdict.RESOLVED_ELSEWHERE),
        (None, 200, Verdict.EXPIRED),
        (None, 201, Verdict.EXPIRED),
        (succeeded(), 150, Verdict.ACCEPTED),
        (UNABLE, 150, Verdict.RESOLVED_ELSEWHERE),
    ],
)
def test_unable_to_resume_is_ours_late_or_foreign(world: World, earlier: Any, head: int, verdict: Verdict) -> None:
    world.resolves.add()
    world.resolves.earlier["job"] = ["h0", "h1"]
    world.rpc.answers.update({"h1": UNABLE, **({"h0": earlier} if earlier else {})})
    world.rpc.head = head
    world.turn(0)
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [verdict]


def test_unable_to_resume_waits_for_a_block_that_tells_whether_it_came_too_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise RpcUnavailable(world.rpc.endpoint, "unreachable")

    world.resolves.add()
    world.rpc.answers["h1"] = UNABLE
    with monkeypatch.context() as patched:
        patched.setattr(world.rpc, "final_block", away)
        world.turn(0)
        world.turn()
    assert world.resolves.settled == {}
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [Verdict.RESOLVED_ELSEWHERE]


def test_a_row_that_goes_alone_is_judged_also_where_the_failure_names_no_action(world: World) -> None:
    world.resolves.add("h1")
    world.rpc.answers["h1"] = failed("Something new", index=None)
    world.turn(0)
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [Verdict.REFUSED]


def test_unable_to_resume_waits_for_an_earlier_transaction_of_ours(world: World) -> None:
    world.resolves.add()
    world.resolves.earlier["job"] = ["h0", "h1"]
    world.rpc.answers.update({"h1": UNABLE, "h0": pending()})
    world.turn(0)
    world.turn()
    assert world.resolves.settled == {}
    world.rpc.answers["h0"] = succeeded()
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [Verdict.ACCEPTED]


def test_what_one_endpoint_has_forgotten_another_still_knows_as_ours(world: World) -> None:
    world.resolves.add()
    world.resolves.earlier["job"] = ["h0", "h1"]
    world.rpc.answers["h1"] = UNABLE
    world.rpc.other = FakeRpc(answers={"h0": succeeded()})
    world.turn(0)
    world.turn()
    assert [row.verdict for row in world.resolves.settled["h1"]] == [Verdict.ACCEPTED]


@pytest.mark.parametrize("away", [False, True])
def test_a_key_is_held_while_its_lowest_is_unseen_and_freed_with_an_empty_window(world: World, away: bool) -> None:
    world.resolves.add()
    world.rpc.away = away
    world.turn(0)
    for _ in range(4):
        world.turn()
    assert list(world.nonces.holds) == [KEY]
    world.rpc.away = False
    world.rpc.answers["h1"] = succeeded()
    world.turn(5)
    world.turn()
    assert world.nonces.holds == {}
    assert world.resolves.rings == 1


def test_a_key_that_is_held_in_the_midst_of_a_burst_is_not_freed_before_that_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The burst and the hold come after the settler read what is in flight."""
    held = world.nonces.held

    def burst_and_hold() -> dict[str, str]:
        if not world.resolves.flights:
            world.resolves.add()
            world.nonces.hold(KEY, f"{UNTIL_EMPTY}another RPC endpoint took over")
        return held()

    monkeypatch.setattr(world.nonces, "held", burst_and_hold)
    world.turn()
    assert (list(world.nonces.holds), world.resolves.rings) == ([KEY], 0)


def test_a_hold_of_another_reason_is_left_alone(world: World) -> None:
    world.nonces.holds[KEY] = "an operator said so"
    world.turn()
    assert list(world.nonces.holds) == [KEY]
