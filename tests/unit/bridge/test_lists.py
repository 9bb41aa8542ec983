"""Whose requests and whose code are run, and what happens where that is not known."""

from __future__ import annotations

from typing import Any

import pytest

from offchainvm.bridge import origins
from offchainvm.bridge.lists import Lists, Origin, Patterns
from offchainvm.bridge.origins import Origins, Undecided
from offchainvm.errors import JobCode, JobError, Unavailable
from offchainvm.models import CodeSource, CompileTask, ExecuteTask, KeptRequest

DATA_ID = "ab" * 32
COMPILE = CompileTask(request_id=1, data_id=DATA_ID, code_source=CodeSource(repo="owner/name", commit="main"))
EXECUTE = ExecuteTask(request_id=1, data_id=DATA_ID, wasm_checksum="e" * 64)


def refused(lists: Lists, **origin: str | None) -> bool:
    try:
        lists.check(Origin(**origin))
    except JobError as error:
        return error.code == JobCode.NOT_ALLOWED.value
    return False


@pytest.mark.parametrize(
    ("allow", "deny", "sender", "told"),
    [
        (("alice.near",), (), "alice.near", False),
        (("alice.near",), (), "bob.near", True),
        (("alice.near",), (), "x.alice.near", True),
        (("*.team.near",), (), "a.b.team.near", False),
        (("*.team.near",), (), "team.near", True),
        (("*.team.near",), (), "otherteam.near", True),
        ((), ("bob.near",), "bob.near", True),
        ((), ("bob.near",), "alice.near", False),
        (("*.near",), ("bob.near",), "bob.near", True),
        (("alice.near",), (), None, True),
        ((), ("bob.near",), None, True),
        ((), (), None, False),
    ],
)
def test_a_sender_is_allowed_by_its_account_or_the_one_above_it(allow: Any, deny: Any, sender: str | None, told: bool) -> None:
    assert refused(Lists(senders=Patterns(allow, deny)), sender_id=sender) is told


@pytest.mark.parametrize("lists", [Lists(Patterns(allow=("a/*",))), Lists(Patterns(deny=("a/*",)))])
def test_a_module_of_an_unknown_repository_slips_past_no_list(lists: Lists) -> None:
    assert refused(lists, repository=None)


class Contract:
    """What the contract keeps; an exception is raised."""

    def __init__(self, answer: KeptRequest | Exception | None) -> None:
        self.answer, self.asked = answer, 0

    def __call__(self, _data_id: str, _request_id: int) -> KeptRequest | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


KEPT = KeptRequest(
    data_id=tuple(bytes.fromhex(DATA_ID)), sender_id="alice.near", code_source=CodeSource(repo="https://github.com/bad/one", commit="main")
)
BOTH = Lists(Patterns(deny=("bad/*",)), Patterns(deny=("bob.near",)))


def origins_of(store: Any, contract: Contract, lists: Lists = BOTH) -> Origins:
    return Origins(records=store, lists=lists, mirror_url="", kept=contract)


def test_an_execute_task_that_names_no_source_is_judged_by_what_the_contract_keeps(store: Any) -> None:
    assert origins_of(store, Contract(KEPT)).of(EXECUTE) == Origin("alice.near", "bad/one")


def test_an_execute_task_whose_source_cannot_be_read_is_judged_by_what_the_contract_keeps(store: Any) -> None:
    task = EXECUTE.model_copy(update={"code_source": CodeSource(repo="https://gitlab.com/a/b", commit="main")})
    assert origins_of(store, Contract(KEPT)).of(task).repository == "bad/one"


def test_what_the_task_and_its_event_tell_is_not_asked_for(store: Any) -> None:
    store.senders[DATA_ID] = "carol.near"
    contract = Contract(KEPT)
    assert origins_of(store, contract).of(COMPILE) == Origin("carol.near", "owner/name")
    assert contract.asked == 0


@pytest.mark.parametrize("task", [COMPILE, EXECUTE])
def test_without_a_list_nobody_is_asked(store: Any, task: Any) -> None:
    contract = Contract(KEPT)
    origins_of(store, contract, Lists()).of(task)
    assert contract.asked == 0


def test_while_the_chain_is_away_nothing_is_decided_and_it_is_left_alone(store: Any) -> None:
    contract = Contract(Unavailable("NEAR RPC", "away"))
    asking = origins_of(store, contract)
    for _ in range(3):
        with pytest.raises(Undecided):
            asking.of(EXECUTE)
    assert contract.asked == 1


def test_a_request_that_the_contract_does_not_know_is_waited_for_and_then_unknown(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now, contract = [100.0], Contract(None)
    monkeypatch.setattr(origins.time, "monotonic", lambda: now[0])
    asking = origins_of(store, contract)
    with pytest.raises(Undecided):
        asking.of(EXECUTE)
    now[0] += origins.PATIENCE_SECONDS
    assert asking.of(EXECUTE) == Origin()
    with pytest.raises(Undecided):
        asking.of(EXECUTE)
    contract.answer = KEPT
    assert asking.of(EXECUTE).sender_id == "alice.near"
