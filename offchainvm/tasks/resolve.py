"""Celery's side of the resolve stage: its task, and the replay of what this host signed.

One message is a doorbell for many jobs: how many wait stands in Redis, not in the message. So this is no
``tasks.stage``: its claims are ``Resolves.take``, in ``tasks.submit``.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import signals

from offchainvm import health, logs
from offchainvm.app import app
from offchainvm.errors import Refused, SettingsError, Unavailable
from offchainvm.jobs.record import DEADLINE_HEIGHTS
from offchainvm.jobs.resolves import Resolves
from offchainvm.journal import Journal, show_size
from offchainvm.near.keyring import check_limits
from offchainvm.near.nonces import Nonces
from offchainvm.near.payload import YIELD_PAYLOAD_LIMIT_BYTES
from offchainvm.near.rpc import ProtocolLimits
from offchainvm.near.signer import TERAGAS, operator_keys
from offchainvm.settings import Role, Settings, load
from offchainvm.tasks import rooms
from offchainvm.tasks.submit import Policy, Submitter

log = logs.get_logger()

HARD_LIMIT_SECONDS = 60
REPLAY_EVERY_SECONDS = 2.0
_opening = threading.Lock()
_checked = threading.Event()
"""Set where the chain told its limits before this process began: its children need not ask."""


def prepare(_app: Any, settings: Settings) -> None:
    """Check the keys, and what we send against the chain's limits where it can be asked; have the journal replayed.

    Raises:
        SettingsError: a key cannot be read, or the chain allows less than we send.
    """
    operator_keys(settings.operator_keys)
    show_size(rooms.state_dir(settings) / "journal", Role.RESOLVE.value)
    health.add_check("rpc", rooms.rpc(settings).final_block)
    resolve_waiting.time_limit = HARD_LIMIT_SECONDS
    signals.worker_process_init.connect(_keep_replaying)
    try:
        limits = rooms.rpc(settings).protocol_config()
    except (Unavailable, Refused) as error:
        log.warning(
            "The chain does not tell its limits: RESOLVE_GAS_TGAS is checked against them when it does.",
            action="skip_check",
            error=error.sentence,
        )
    else:
        _check(settings)(limits)
        _checked.set()


def _check(settings: Settings) -> Callable[[ProtocolLimits], None]:
    return functools.partial(
        check_limits,
        gas=settings.resolve_gas_tgas * TERAGAS,
        resume_bytes=YIELD_PAYLOAD_LIMIT_BYTES,
        deadline_blocks=DEADLINE_HEIGHTS,
    )


def _submitter() -> Submitter:
    """The one of this process."""
    with _opening:
        return _open_submitter()


@functools.cache
def _open_submitter() -> Submitter:
    settings = load([Role.RESOLVE])
    redis = rooms.redis_client(settings.redis_url)
    rpc = rooms.rpc(settings)
    return Submitter(
        resolves=Resolves(redis),
        nonces=lambda: Nonces(redis, network=rpc.chain_id(), account_id=settings.operator_account_id),
        rpc=rpc,
        journal=Journal(rooms.state_dir(settings) / "journal", "resolve"),
        keys=operator_keys(settings.operator_keys),
        policy=Policy(
            operator_id=settings.operator_account_id,
            contract_id=settings.offchainvm_contract_id,
            gas=settings.resolve_gas_tgas * TERAGAS,
            window=settings.key_window,
            batch=settings.resolves_per_transaction,
        ),
        check=None if _checked.is_set() else _check(settings),
    )


@app.task(name="offchainvm.resolve")  # type: ignore[untyped-decorator]
def resolve_waiting(message: dict[str, Any]) -> None:  # noqa: ARG001 -- a doorbell has nothing to say
    """Celery's entry to the resolve stage."""
    try:
        _submitter().submit()
    except (Unavailable, Refused) as error:
        log.warning("Resolves wait; the reconciler rings again.", action="wait_for_service", reason=str(error))
    except SettingsError as error:
        log.error("Resolves wait until the settings are right. Correct them, then restart.", action="settings_refused", reason=str(error))


def _keep_replaying(**_: Any) -> None:
    """A host without work must replay its journal too: the others wait for it."""
    threading.Thread(target=_replay_for_ever, name="replay", daemon=True).start()


def _replay_for_ever() -> None:
    while True:
        try:
            _submitter().replay()
        except (Unavailable, Refused) as error:
            log.debug("The journal waits to be replayed.", action="wait_for_service", reason=str(error))
        except Exception:
            log.exception("The journal could not be replayed; tried again.", action="replay_failed")
        time.sleep(REPLAY_EVERY_SECONDS)
