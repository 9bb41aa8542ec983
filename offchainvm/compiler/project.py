"""Phase 1b: what is in the repository, judged from outside, before anything is fetched or built.

All of it comes from git and cargo run on strangers' files, so every value is checked.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from offchainvm.compiler.dependencies import check_sources, shown
from offchainvm.compiler.folders import FOLDERS
from offchainvm.compiler.limits import BuildLimits
from offchainvm.errors import BuildCode, BuildError

SOURCE_FOLDER = FOLDERS["src"]
_SYMLINK, _SUBMODULE = "120000", "160000"
_TREE_LINE = re.compile(r"(\d{6}) (\w+) [0-9a-f]{40} +(\d+|-)\t(.+)", re.DOTALL)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NOT_A_NAME = {"", ".", "..", ".git"}
_MANIFEST_NAMES = {"Cargo.toml", "Cargo.lock"}


@dataclass(frozen=True)
class Tree:
    """The files of a commit."""

    paths: frozenset[str]
    size_bytes: int
    submodules: int
    root: str = SOURCE_FOLDER
    """Where in the sandbox the package or workspace lies: ``/src``, or a folder below."""

    @property
    def folder(self) -> str:
        """``root`` as seen from the repository; empty for its own root folder."""
        return self.root[len(SOURCE_FOLDER) + 1 :]

    @property
    def has_lockfile(self) -> bool:
        return posixpath.join(self.folder, "Cargo.lock") in self.paths


@dataclass(frozen=True)
class Project:
    """The one target of a repository that becomes the module."""

    package: str
    manifest_path: str
    kind: str
    """``lib`` (a cdylib) or ``bin``."""
    name: str
    """The target's name, as ``cargo build --bin`` takes it."""

    @property
    def cargo_arguments(self) -> tuple[str, ...]:
        chosen = ("--lib",) if self.kind == "lib" else ("--bin", self.name)
        return ("--manifest-path", self.manifest_path, *chosen)

    @property
    def file_name(self) -> str:
        return f"{self.name.replace('-', '_') if self.kind == 'lib' else self.name}.wasm"


def read_tree(untrusted_listing: bytes, limits: BuildLimits) -> Tree:
    """Judge the output of ``git ls-tree -r -l -z``.

    Raises:
        BuildError: ``repo_too_large``, ``manifest_missing``, ``manifest_invalid`` (a manifest that is a symbolic link).
    """
    entries = [_TREE_LINE.fullmatch(line) for line in untrusted_listing.decode("utf-8", "replace").split("\0") if line]
    rows = [(match[1], int(match[3]) if match[3] != "-" else 0, match[4]) for match in entries if match]
    size_bytes = sum(size for _, size, _ in rows)
    if len(rows) > limits.source_files or size_bytes > limits.source_mb * 2**20:
        raise BuildError(
            BuildCode.REPO_TOO_LARGE,
            f"The repository has {len(rows)} files and {size_bytes} bytes; allowed are {limits.source_files} and {limits.source_mb} MiB.",
        )
    for mode, _, path in rows:
        # Git would not check it out either; nobody but an attacker writes such a tree.
        if path.startswith("/") or _NOT_A_NAME & set(path.lower().split("/")):
            raise BuildError(BuildCode.UNSUPPORTED_SOURCE, f"The repository has a file that lies outside of it: {shown(path)}")
        if mode == _SYMLINK and posixpath.basename(path) in _MANIFEST_NAMES:
            raise BuildError(BuildCode.MANIFEST_INVALID, f"{shown(path)} is a symbolic link; it must be a regular file.")
    paths = frozenset(path for mode, _, path in rows if mode not in {_SYMLINK, _SUBMODULE})
    root = posixpath.join(SOURCE_FOLDER, _folder(paths)).rstrip("/")
    return Tree(paths, size_bytes, sum(mode == _SUBMODULE for mode, _, _ in rows), root)


def _folder(paths: Iterable[str]) -> str:
    """The folder of the one Cargo.toml that has none above it: a package or workspace with all its members."""
    outermost = list[str]()
    for folder in sorted(path.removesuffix("Cargo.toml") for path in paths if posixpath.basename(path) == "Cargo.toml"):
        # In this order a folder is followed by all that lies below it.
        if not (outermost and folder.startswith(outermost[-1])):
            outermost.append(folder)
    outermost = [folder.rstrip("/") for folder in outermost]
    if len(outermost) == 1:
        return outermost[0]
    if not outermost:
        raise BuildError(BuildCode.MANIFEST_MISSING, "The repository has no Cargo.toml.")
    names = [shown(folder) for folder in outermost[:8]]
    members = ", ".join(f'"{name}"' for name in names)
    raise BuildError(
        BuildCode.MANIFEST_MISSING,
        f"The repository has no Cargo.toml in its root folder, and {len(outermost)} below it: {', '.join(names)}.",
        remedy=f"Add a Cargo.toml to the root that says which is wanted: [workspace], members = [{members}], default-members = [...].",
    )


def read_project(untrusted_metadata: bytes, *, target: str, root: str = SOURCE_FOLDER) -> Project:
    """Choose what to build from ``cargo metadata --no-deps``: by rule, never by what a build prints.

    The package in the folder ``root`` where there is one, else the only member that gives a module. In it, for
    wasm32-unknown-unknown its cdylib, else its binary; for WASI its binary, else its cdylib.

    Raises:
        BuildError: ``manifest_invalid``, ``unsupported_source``, ``no_artifact``, ``ambiguous_artifact``.
    """
    try:
        metadata = json.loads(untrusted_metadata)
        packages: list[dict[str, Any]] = metadata["packages"]
        if metadata["workspace_root"] != root:
            raise _outside("The workspace's root")
        for package in packages:
            _check_package(package)
        roots = [package for package in packages if package["manifest_path"] == f"{root}/Cargo.toml"]
        members = roots or _default_members(metadata, packages)
        found = [project for package in members for project in _projects(package, target)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BuildError(BuildCode.MANIFEST_INVALID, "The description of the package cannot be read.") from error
    return _only(found, target)


def _default_members(metadata: dict[str, Any], packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = metadata.get("workspace_default_members") or metadata["workspace_members"]
    return [package for package in packages if package["id"] in wanted]


def _check_package(package: dict[str, Any]) -> None:
    if not package["manifest_path"].startswith(f"{SOURCE_FOLDER}/"):
        raise _outside(f"The package {shown(package['name'])}")
    for dependency in package["dependencies"]:
        path = dependency.get("path")
        if path and not f"{posixpath.normpath(path)}/".startswith(f"{SOURCE_FOLDER}/"):
            raise _outside(f"The dependency {shown(dependency['name'])}")
    check_sources(dependency["source"] for dependency in package["dependencies"] if dependency["source"])


def _projects(package: dict[str, Any], target: str) -> list[Project]:
    found = [_project(package, item) for item in package["targets"]]
    libs, bins = ([project for project in found if project and project.kind == kind] for kind in ("lib", "bin"))
    if len(bins) > 1:
        bins = (
            [item for item in bins if item.name == package.get("default_run")]
            or [item for item in bins if item.name == package["name"]]
            or bins
        )
    first, second = (libs, bins) if target == "wasm32-unknown-unknown" else (bins, libs)
    return first or second


def _project(package: dict[str, Any], target: dict[str, Any]) -> Project | None:
    """A target of a package, where it is of a kind that becomes a module."""
    is_lib = "cdylib" in target["crate_types"] and "example" not in target["kind"]
    if not is_lib and target["kind"] != ["bin"]:
        return None
    if not _FILE_NAME.fullmatch(target["name"]):
        raise BuildError(BuildCode.MANIFEST_INVALID, f"The target name {shown(target['name'])} is not allowed.")
    return Project(package["name"], package["manifest_path"], "lib" if is_lib else "bin", target["name"])


def _only(found: list[Project], target: str) -> Project:
    if not found:
        raise BuildError(
            BuildCode.NO_ARTIFACT,
            f"The package has nothing that becomes a module for {target}.",
            remedy='Give it a binary, or a library with crate-type = ["cdylib"].',
        )
    if len(found) > 1:
        names = ", ".join(sorted(shown(project.name) for project in found)[:8])
        raise BuildError(
            BuildCode.AMBIGUOUS_ARTIFACT,
            f"The repository gives {len(found)} modules ({names}), and one is wanted.",
            remedy="Set default-run in the package, or default-members in the workspace.",
        )
    return found[0]


def _outside(what: str) -> BuildError:
    return BuildError(BuildCode.MANIFEST_INVALID, f"{what} points outside the repository.")
