"""From a repository and a commit to a checked module: strangers' code is built in a container sandbox only."""

from __future__ import annotations

from offchainvm.compiler.base import Builder, BuildEvent, BuildRequest, BuiltModule
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.source import Resolver, Source, parse_source, source_key

__all__ = ["BuildEvent", "BuildLimits", "BuildRequest", "Builder", "BuiltModule", "Resolver", "Source", "parse_source", "source_key"]
