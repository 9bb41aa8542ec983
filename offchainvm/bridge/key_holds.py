"""Keys that must not sign for now: held until their window is empty, or until the operator has acted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from offchainvm.bridge.link import Link
from offchainvm.jobs.resolves import Transaction
from offchainvm.logs import get_logger
from offchainvm.near.nonces import UNTIL_EMPTY, Nonces
from offchainvm.near.rpc import RpcRefused, RpcUnavailable

log = get_logger()

_REASON = f"{UNTIL_EMPTY}its lowest transaction in flight is unseen"
_LOOK_EVERY_SECONDS = 1.0


class KeyHolds:
    """What the settler has to tell the signers of their keys.

    While the chain does not tell its name nothing is held or freed: the next look does it.

    Args:
        nonces: makes the ``Nonces`` of our account when the chain's id can be asked.
        in_flight: transactions of a public key that may still land, as of now.
        on_freed: called for each key that may sign again: rows may wait for it.
    """

    def __init__(
        self,
        nonces: Callable[[], Nonces],
        *,
        in_flight: Callable[[str], Collection[Transaction]],
        chain: Link,
        on_freed: Callable[[], None],
    ) -> None:
        self._make_nonces, self._in_flight, self._chain, self._on_freed = nonces, in_flight, chain, on_freed
        self._nonces: Nonces | None = None
        self._looked_at = float("-inf")

    def mind(self, now: float, *, unseen: Mapping[str, str]) -> None:
        """Hold keys whose lowest transaction stays unseen, and let go of those whose window is empty.

        Args:
            unseen: public key to hash of its lowest transaction, which no node has seen for long.
        """
        if now - self._looked_at < _LOOK_EVERY_SECONDS:
            return
        self._looked_at, nonces = now, self._ours()
        if nonces is None:
            return
        for public_key, hash in unseen.items():
            if nonces.hold(public_key, _REASON):
                log.warning("key held until its window is empty", action="hold_key", public_key=public_key, transaction=hash)
        passing = [key for key, reason in nonces.held().items() if reason.startswith(UNTIL_EMPTY)]
        # Asked after the holds: a key that was held in the midst of a burst has what that sent in flight.
        freed = [key for key in passing if not self._in_flight(key) and nonces.unhold(key, UNTIL_EMPTY)]
        for public_key in freed:
            log.info("key signs again", action="unhold_key", public_key=public_key)
            self._on_freed()

    def disable(self, public_key: str, why: str) -> None:
        """Let a key sign nothing more when the chain refuses what it signs: each signature would end like the one before."""
        if (nonces := self._ours()) is None:
            return
        if nonces.disable(public_key, why):
            log.error(
                "the chain refuses what a key signs, so it signs nothing more. Correct key or setting, then restart the resolve worker",
                action="condemn_key",
                public_key=public_key,
                reason=why,
            )

    def raise_floor(self, public_key: str, nonce: int) -> None:
        """Let the next nonce of a key be above ``nonce``, which the chain has seen."""
        if (nonces := self._ours()) is not None:
            nonces.raise_floor(public_key, nonce)

    def _ours(self) -> Nonces | None:
        if self._nonces is None:
            try:
                self._nonces = self._make_nonces()
            except (RpcRefused, RpcUnavailable) as error:
                self._chain.down(error)
        return self._nonces
