"""A Cargo.lock, read as data: the crates that a build needs, each with the checksum by which it is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from offchainvm.compiler.dependencies import CRATES_IO, check_sources
from offchainvm.compiler.toml import read_toml
from offchainvm.errors import BuildCode, BuildError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}\.[0-9]{1,20}[0-9A-Za-z.+-]{0,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PACKAGES = 5000


@dataclass(frozen=True, order=True)
class Crate:
    """One crate of the registry, checked so far that its name and version may stand in a path and in an address."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class Lockfile:
    """What a Cargo.lock asks for."""

    crates: tuple[Crate, ...]
    needs_git: bool
    """Whether a dependency comes from a git repository."""


def read_lockfile(untrusted_text: str) -> Lockfile:
    """Read and judge a Cargo.lock of any version.

    Raises:
        BuildError: ``manifest_invalid``, ``unsupported_source``.
    """
    try:
        untrusted = read_toml(untrusted_text)
        packages = [*untrusted.get("package", ()), *([untrusted["root"]] if "root" in untrusted else ())]
        sources = [package.get("source", "") for package in packages]
        if len(packages) > _MAX_PACKAGES or not all(isinstance(source, str) for source in sources):
            raise ValueError
        check_sources(filter(None, sources))
        crates = {_crate(package, untrusted.get("metadata", {})) for package in packages if package.get("source") == CRATES_IO}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildError(BuildCode.MANIFEST_INVALID, "Cargo.lock is not one that cargo has written.") from error
    return Lockfile(tuple(sorted(crates)), any(source.startswith("git+") for source in sources))


def _crate(package: dict[str, Any], metadata: dict[str, str]) -> Crate:
    name, version = package["name"], package["version"]
    # A lock file of version 1 keeps the checksums in a table of their own.
    sha256 = package.get("checksum") or metadata[f"checksum {name} {version} ({package['source']})"]
    if not (_NAME.fullmatch(name) and _VERSION.fullmatch(version) and _SHA256.fullmatch(sha256)):
        raise ValueError(name)
    return Crate(name, version, sha256)
