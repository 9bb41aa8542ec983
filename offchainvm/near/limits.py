"""The chain's limits, learned when it tells them: a provider may be away, or not offer the method at all."""

from __future__ import annotations

import math
import time

from offchainvm.errors import Refused, Unavailable
from offchainvm.logs import get_logger
from offchainvm.near.rpc import ProtocolLimits, Rpc

log = get_logger()

ASK_AGAIN_SECONDS = 60.0


class ChainLimits:
    """Asks until the chain tells its limits, at most once a minute; safe to share between threads."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._known: ProtocolLimits | None = None
        self._ask_at = -math.inf

    def get(self) -> ProtocolLimits | None:
        """The limits; None while the chain does not tell them."""
        if self._known is None and time.monotonic() >= self._ask_at:
            # Before the call: threads that come meanwhile do without.
            self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS
            try:
                self._known = self._rpc.protocol_config()
            except (Refused, Unavailable) as error:
                log.info("The chain does not tell its limits; the usual ones serve.", action="usual_limits", error=error.sentence)
        return self._known
