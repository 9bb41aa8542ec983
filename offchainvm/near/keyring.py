"""What the chain says of the operator's keys: whether each may resolve, how it signs, and how much fits into one transaction.

Looked up once a key and process; a key that may not sign is passed over, and looked at again after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from offchainvm.errors import SettingsError, Unavailable
from offchainvm.logs import get_logger
from offchainvm.models import RESOLVE_METHOD
from offchainvm.near.limits import ChainLimits
from offchainvm.near.nonces import Nonces
from offchainvm.near.rpc import ProtocolLimits, Rpc
from offchainvm.near.signer import TERAGAS

log = get_logger()

LOOK_AGAIN_SECONDS = 30.0
USUAL_LIMITS = ProtocolLimits(
    chain_id="",
    protocol_version=0,
    max_prepaid_gas=300 * TERAGAS,
    max_actions=100,
    max_transaction_bytes=1_572_864,
    max_resume_bytes=1024,
    yield_timeout_blocks=200,
    transaction_validity_blocks=86_400,
)
"""The smallest that the public networks have had (wire.md §2), for while the chain cannot be asked."""


@dataclass(frozen=True)
class KeyFacts:
    """One key that may resolve."""

    nonce: int
    """On chain, when this process first used the key; from then on the script in Redis knows better."""
    full_access: bool
    """Only such a key may put several actions into one transaction."""


class KeyUnfit(Unavailable):
    """This key may not sign for now; what to do about it was logged."""

    code = "key_unfit"


class Keyring:
    """The keys of one operator, as the chain knows them; made for one thread.

    Args:
        check: is called with the chain's limits when it first tells them, and may raise ``SettingsError``: nothing is signed then.
    """

    def __init__(
        self, rpc: Rpc, nonces: Nonces, *, operator_id: str, contract_id: str, check: Callable[[ProtocolLimits], None] | None = None
    ) -> None:
        self._rpc, self._nonces = rpc, nonces
        self._operator_id, self._contract_id = operator_id, contract_id
        self._known: dict[str, KeyFacts] = {}
        self._unfit_until: dict[str, float] = {}
        self._limits, self._check = ChainLimits(rpc), check

    def look(self, public_key: str) -> KeyFacts:
        """A key's facts.

        Raises:
            KeyUnfit: it may not resolve; RpcUnavailable, RpcRefused: the chain makes no statement.
        """
        if public_key not in self._known:
            self._known[public_key] = self._ask(public_key)
        return self._known[public_key]

    def batch(self, public_key: str, wanted: int, *, gas: int) -> int:
        """How many of ``wanted`` resolves, of so much gas each, one transaction of this key carries.

        Raises:
            As ``look``; SettingsError: by ``check``.
        """
        if self._check is not None:
            self._check_limits(self._check)
        if wanted == 1 or not self.look(public_key).full_access:
            return 1
        return self.limits().resolves_per_transaction(wanted, gas=gas)

    def limits(self) -> ProtocolLimits:
        """The chain's limits; the usual ones while it does not tell."""
        return self._limits.get() or USUAL_LIMITS

    def _check_limits(self, check: Callable[[ProtocolLimits], None]) -> None:
        if (told := self._limits.get()) is not None:
            check(told)
            self._check = None

    def _ask(self, public_key: str) -> KeyFacts:
        if time.monotonic() < self._unfit_until.get(public_key, 0.0):
            raise KeyUnfit("NEAR key", f"{public_key} may not resolve")
        on_chain = self._rpc.access_key(self._operator_id, public_key)
        if on_chain is None:
            raise self._unfit(public_key, f"{self._operator_id} has no key {public_key} on chain. Add it to the account.")
        if not on_chain.may_call(self._contract_id, RESOLVE_METHOD):
            allowed = f"{', '.join(on_chain.methods) or 'all methods'} of {on_chain.receiver_id}"
            needed = f"{RESOLVE_METHOD} of {self._contract_id}"
            raise self._unfit(public_key, f"{public_key} may call {allowed} alone. Put a key here that may call {needed}.")
        if self._nonces.enable(public_key):
            log.info("A key that was refused signs again: the chain knows it as fit.", action="unhold_key", public_key=public_key)
        return KeyFacts(nonce=on_chain.nonce, full_access=on_chain.full_access)

    def _unfit(self, public_key: str, problem: str) -> KeyUnfit:
        """Tell the operator once in a while; the other keys sign on."""
        self._unfit_until[public_key] = time.monotonic() + LOOK_AGAIN_SECONDS
        sentence = f"OPERATOR_PRIVATE_KEY: {problem}"
        log.error(sentence, action="pass_over_key", public_key=public_key)
        return KeyUnfit("NEAR key", problem)


def check_limits(limits: ProtocolLimits, *, gas: int, resume_bytes: int, deadline_blocks: int) -> None:
    """Whether the chain takes what this version sends: so much gas in one transaction, so long an answer, for so long.

    Raises:
        SettingsError: with every limit that is lower.
    """
    problems = []
    if gas > limits.max_prepaid_gas:
        most = limits.max_prepaid_gas // TERAGAS
        problems.append(f"RESOLVE_GAS_TGAS: {gas // TERAGAS} is more than one transaction may attach on this chain. Set at most {most}.")
    for ours, theirs, what in (
        (resume_bytes, limits.max_resume_bytes, "bytes in an answer"),
        (deadline_blocks, limits.yield_timeout_blocks, "blocks until a request ends"),
    ):
        if ours > theirs:
            problems.append(f"NEAR_RPC_URL: this chain allows {theirs} {what}, this version counts on {ours}. Upgrade offchainvm.")
    if problems:
        raise SettingsError(problems)
