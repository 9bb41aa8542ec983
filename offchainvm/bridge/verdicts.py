"""What a final transaction means for each of its jobs."""

from __future__ import annotations

from offchainvm.jobs.record import Verdict
from offchainvm.jobs.resolves import Resolves, RowOutcome, Transaction
from offchainvm.jobs.store import JobStore
from offchainvm.logs import get_logger
from offchainvm.near.outcome import ActionVerdict, TransactionOutcome, TransactionState, look_up
from offchainvm.near.rpc import Rpc, RpcRefused, RpcUnavailable

log = get_logger()

_FOREIGN = RowOutcome(Verdict.RESOLVED_ELSEWHERE, "resolved_elsewhere: the contract had an answer, or had given up, before ours came")


class Verdicts:
    """Judges the rows of final transactions."""

    def __init__(self, *, rpc: Rpc, resolves: Resolves, store: JobStore, operator_id: str) -> None:
        self._rpc, self._resolves, self._store = rpc, resolves, store
        self._operator_id = operator_id

    def of(self, transaction: Transaction, outcome: TransactionOutcome) -> list[RowOutcome] | None:
        """One outcome a row, or None while one of them cannot be told yet.

        Raises:
            Unavailable: Redis is away.
        """
        rows = [
            self._row(transaction, data_id, verdict, outcome.text)
            for data_id, verdict in zip(transaction.data_ids, outcome.verdicts, strict=True)
        ]
        known = [row for row in rows if row is not None]
        return known if len(known) == len(rows) else None

    def _row(self, transaction: Transaction, data_id: str, verdict: ActionVerdict, text: str) -> RowOutcome | None:
        if verdict is ActionVerdict.ACCEPTED:
            return RowOutcome(Verdict.ACCEPTED)
        if verdict is ActionVerdict.NOT_APPLIED:
            return RowOutcome(None)
        if verdict is ActionVerdict.UNABLE_TO_RESUME:
            return self._unable_to_resume(transaction, data_id)
        if verdict is ActionVerdict.CONTRACT_ERROR and len(transaction.data_ids) > 1:
            # Perhaps its neighbours' doing: it is judged when it went alone.
            return RowOutcome(None, f"{verdict.value}: {text}")
        log.error(
            "the contract refuses our resolve. Check OPERATOR_ACCOUNT_ID, OFFCHAINVM_CONTRACT_ID and RESOLVE_GAS_TGAS",
            action="resolve_refused",
            data_id=data_id,
            transaction=transaction.hash,
            verdict=verdict.value,
            text=text,
        )
        return RowOutcome(Verdict.REFUSED, f"{verdict.value}: {text}")

    def _unable_to_resume(self, transaction: Transaction, data_id: str) -> RowOutcome | None:
        """Ours, when an earlier transaction with the same payload was accepted; else too late, or another's."""
        for earlier in self._resolves.hashes(data_id):
            if earlier == transaction.hash:
                continue
            state = self._state_of(earlier)
            if state is TransactionState.SUCCEEDED:
                return RowOutcome(Verdict.ACCEPTED)
            if state in {TransactionState.PENDING, TransactionState.NO_STATEMENT}:
                return None
        job = self._store.get(data_id)
        if job is not None and job.deadline_height is not None:
            return self._late_or_foreign(job.deadline_height)
        return _FOREIGN

    def _late_or_foreign(self, deadline_height: int) -> RowOutcome | None:
        """By a block as new as the refusal: one known from before may be too old to tell."""
        try:
            height = self._rpc.final_block().height
        except (RpcRefused, RpcUnavailable):
            return None
        # In the block of that height the chain resumes with nothing, before anything else.
        if height >= deadline_height:
            return RowOutcome(Verdict.EXPIRED, "expired: the request's deadline passed before our answer reached the contract")
        return _FOREIGN

    def _state_of(self, hash: str) -> TransactionState:
        """As the endpoint in use knows it; what that does not know, as the next one does."""
        state = look_up(self._rpc, hash, sender_id=self._operator_id, actions=1).state
        if state is not TransactionState.UNKNOWN:
            return state
        return look_up(self._rpc.elsewhere(), hash, sender_id=self._operator_id, actions=1).state
