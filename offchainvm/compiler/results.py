"""What the phases of a build left for the worker, read from outside: strangers' bytes, each bounded."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from offchainvm.compiler import artifact
from offchainvm.compiler.archive import NotRegular, TooBig
from offchainvm.compiler.folders import FOLDERS
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.sandbox import Sandbox
from offchainvm.errors import BuildCode, BuildError

_ANSWERS_BYTES = 32 * 2**20
_MANIFESTS_BYTES = 4 * 2**20
_LOCKFILE_BYTES = 2 * 2**20
_SMALL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answers:
    """What the phases answered, by the names of the files: bytes that strangers' repositories decide on."""

    untrusted_files: Mapping[str, bytes]

    def text(self, name: str) -> str:
        """A short answer of a phase; empty where there is none.

        Raises:
            BuildError: ``repo_too_large``.
        """
        return self._text(name, limit_bytes=_SMALL_BYTES)

    @property
    def tree(self) -> bytes:
        """The output of ``git ls-tree``."""
        return self.untrusted_files.get("tree", b"")

    @property
    def metadata(self) -> bytes:
        """The output of ``cargo metadata``."""
        return self.untrusted_files.get("metadata.json", b"")

    @property
    def manifests(self) -> list[str]:
        """The text of every Cargo.toml in the tree.

        Raises:
            BuildError: ``repo_too_large``.
        """
        return self._text("manifests", limit_bytes=_MANIFESTS_BYTES).split("\0")

    def _text(self, name: str, *, limit_bytes: int) -> str:
        untrusted_file = self.untrusted_files.get(name, b"")
        if len(untrusted_file) > limit_bytes:
            raise _too_long()
        return untrusted_file.decode("utf-8", "replace")


class Results:
    """The results of one build."""

    def __init__(self, place: Sandbox) -> None:
        self._place = place

    def answers(self) -> Answers:
        """What the phases have answered until now.

        Raises:
            BuildError: ``repo_too_large``.
        """
        try:
            return Answers(self._place.read_folder(FOLDERS["out"], limit_bytes=_ANSWERS_BYTES))
        except (NotRegular, TooBig):
            raise _too_long() from None

    def lockfile(self, root: str) -> str:
        """The text of the Cargo.lock in the folder ``root`` of the sandbox.

        Raises:
            BuildError: ``manifest_invalid``.
        """
        try:
            untrusted_lockfile = self._place.read_file(f"{root}/Cargo.lock", limit_bytes=_LOCKFILE_BYTES)
        except (NotRegular, TooBig):
            raise BuildError(BuildCode.MANIFEST_INVALID, "Cargo.lock is no regular file, or over 2 MiB.") from None
        return (untrusted_lockfile or b"").decode("utf-8", "replace")

    def module(self, path: str, limits: BuildLimits, log_tail: str) -> bytes:
        """The module that a build was to leave at ``path``, its structure checked; whether its code is valid is found where it is compiled.

        Raises:
            BuildError: ``no_artifact``, ``artifact_invalid``, ``artifact_too_large``.
        """
        try:
            untrusted_wasm = self._place.read_file(path, limit_bytes=limits.module_bytes)
        except NotRegular:
            raise BuildError(BuildCode.ARTIFACT_INVALID, "The module that the build left is no regular file.", log_tail=log_tail) from None
        except TooBig as error:
            raise artifact.too_large(error.args[0], error.args[1]) from None
        if untrusted_wasm is None:
            raise BuildError(BuildCode.NO_ARTIFACT, f"The build ended well but left no {posixpath.basename(path)}.", log_tail=log_tail)
        artifact.check_artifact(untrusted_wasm, limit_bytes=limits.module_bytes)
        return untrusted_wasm


def _too_long() -> BuildError:
    return BuildError(BuildCode.REPO_TOO_LARGE, "The list of the repository's files or packages, or of its manifests, is too long.")
