"""The module that a build left behind: still a stranger's bytes until it has passed here."""

from __future__ import annotations

from offchainvm.engine.module import check_module
from offchainvm.errors import BuildCode, BuildError, ExecutionError


def check_artifact(untrusted_wasm: bytes, *, limit_bytes: int) -> None:
    """Accept bytes that look like what the engine runs: its structure, sizes, entry point and imports (of a component, its sizes alone).

    This process holds secrets, so no engine parses them here: the worker that compiles them finds whether the code is valid.

    Raises:
        BuildError: ``artifact_too_large`` or ``artifact_invalid``.
    """
    if len(untrusted_wasm) > limit_bytes:
        raise too_large(len(untrusted_wasm), limit_bytes)
    try:
        check_module(untrusted_wasm)
    except ExecutionError as error:
        raise BuildError(BuildCode.ARTIFACT_INVALID, f"The module cannot be run: {error.sentence}", remedy=error.remedy) from error


def too_large(size_bytes: int, limit_bytes: int) -> BuildError:
    """A module over its limit, both sizes named."""
    return BuildError(BuildCode.ARTIFACT_TOO_LARGE, f"The module has {size_bytes} bytes; the limit is {limit_bytes}.")
