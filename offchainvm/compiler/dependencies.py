"""Where dependencies may come from: the Rust package registry, and repositories on GitHub (or the mirrors that stand for them).

Manifests are read here because cargo tells of the workspace's members alone, but asks any registry that any manifest on its way names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from offchainvm.compiler.source import is_on_github
from offchainvm.compiler.toml import read_toml
from offchainvm.errors import BuildCode, BuildError

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
_CARGO_NEVER_READS = "metadata"


def check_sources(untrusted_sources: Iterable[str]) -> None:
    """Judge sources as cargo writes them in metadata and lock files.

    Raises:
        BuildError: ``unsupported_source``.
    """
    for source in untrusted_sources:
        if source != CRATES_IO and not (source.startswith("git+") and is_on_github(re.split("[?#]", source[4:])[0])):
            raise _elsewhere(source)


def check_manifests(untrusted_texts: Iterable[str]) -> None:
    """Judge the text of every Cargo.toml that cargo may come by.

    Raises:
        BuildError: ``unsupported_source``; ``manifest_invalid`` for one that cannot be read.
    """
    for text in untrusted_texts:
        try:
            manifest = read_toml(text.removeprefix("\ufeff"))
        except ValueError as error:
            raise BuildError(BuildCode.MANIFEST_INVALID, "A Cargo.toml in the repository is no TOML 1.0 that can be read.") from error
        for table in _tables(manifest):
            _check_table(table)


def _check_table(table: dict[str, Any]) -> None:
    git = table.get("git")
    if "registry-index" in table:
        raise _elsewhere(str(table["registry-index"]))
    # A crate by the name of git has a version here, which holds neither.
    if isinstance(git, str) and re.search("[:/]", git) and not is_on_github(git):
        raise _elsewhere(git)


def _tables(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All tables, wherever they stand: cargo takes an array for a table of the same fields."""
    for name in ("package", "project", "workspace"):
        if isinstance(manifest.get(name), dict):
            manifest[name].pop(_CARGO_NEVER_READS, None)
    left: list[Any] = [manifest]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _elsewhere(untrusted_source: str) -> BuildError:
    return BuildError(
        BuildCode.UNSUPPORTED_SOURCE,
        f"A dependency comes from {shown(untrusted_source)}; only the Rust package registry and GitHub repositories are allowed.",
    )


def shown(untrusted_name: str) -> str:
    """A stranger's name as text that is safe to print."""
    return re.sub(r"[^\x20-\x7e]", "?", untrusted_name)[:120]
