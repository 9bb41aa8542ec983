"""What the checks share: the settings that one needs, or the word that it could not look."""

from __future__ import annotations

from collections.abc import Sequence

from offchainvm.near.rpc import Rpc
from offchainvm.settings import Settings, load_only


class NotLookedAt(Exception):
    """A check needs a setting that is not there; the row of the settings says so already where it matters."""


def need(*names: str, also: Sequence[str] = ()) -> Settings:
    """The named settings, and those of ``also`` where they are given.

    Raises:
        NotLookedAt: one of them is not set.
    """
    settings = load_only([*names, *also, "ca_bundle"])
    missing = [name.upper() for name in names if not getattr(settings, name)]
    if missing:
        raise NotLookedAt(f"not checked: {', '.join(missing)} is not set")
    return settings


def rpc_with(*names: str, also: Sequence[str] = ()) -> tuple[Rpc, Settings]:
    """The chain, and what ``need`` gives."""
    settings = need(*names, also=also)
    return Rpc(settings.near_rpc_url, ca_bundle=settings.ca_bundle), settings
