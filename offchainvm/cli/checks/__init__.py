"""What `offchainvm doctor` looks at, in order: one function a row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from offchainvm.cli.checks import builds, chain, clock, confinement, engines, fleet, host, limits, network, services
from offchainvm.settings import Role

_B, _M, _C, _E, _R, _D, _W = Role
_ALL = frozenset(Role)
Check = tuple[frozenset[Role], str, Callable[[], str]]
"""The roles that need it, the name of its row, and a function that tells what is well or raises what is wrong."""
CHECKS: Sequence[Check] = (
    (_ALL - {_D, _W}, "state folder", host.check_state_dir),
    (_ALL - {_D, _W}, "disk space", host.check_disk),
    (_ALL - {_D, _W}, "clock", clock.check_clock),
    (_ALL, "Redis", services.check_redis),
    (_ALL, "broker", services.check_broker),
    (frozenset({_B}), "pause", services.check_pause),
    (frozenset({_B, _M}), "set aside", services.check_set_aside),
    (frozenset({_B, _M, _C, _E}), "Coordinator", services.check_coordinator),
    (frozenset({_C}), "Docker", builds.check_docker),
    (frozenset({_C}), "builder image", builds.check_builder_image),
    (frozenset({_C}), "build memory", builds.check_memory),
    (frozenset({_B, _C}), "source host", builds.check_source_host),
    (frozenset({_E}), "engines", engines.check_engines),
    (frozenset({_E}), "guest confinement", confinement.check_confinement),
    (frozenset({_B, _E}), "limits", limits.check_limits),
    (frozenset({_B, _E, _R}), "RPC", chain.check_rpc),
    (frozenset({_B, _E, _R}), "network", network.check_network),
    (frozenset({_B, _M, _E}), "block service", network.check_block_service),
    (frozenset({_R}), "access keys", chain.check_access_keys),
    (frozenset({_B, _R}), "held keys", chain.check_held_keys),
    (frozenset({_B, _R}), "balance", chain.check_balance),
    (frozenset({_B, _R}), "operator role", chain.check_operator_role),
    (frozenset({_B, _M}), "event monitor", chain.check_monitor),
    *((_ALL - {_M}, f"queue {queue}", functools.partial(fleet.check_queue, queue)) for queue in fleet.QUEUES),
)
