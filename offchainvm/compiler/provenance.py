"""Where a module comes from, as an in-toto Statement v1 with a SLSA provenance v1 predicate."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.image import ImageRecord
from offchainvm.compiler.project import Project
from offchainvm.compiler.source import is_full_sha
from offchainvm.errors import BuildCode, BuildError
from offchainvm.models import CodeSource

BUILD_TYPE = "urn:offchainvm:cargo-wasm:v1"
LIMIT_BYTES = 8 * 2**20
_IS_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Claim:
    """What a provenance says, as far as a rebuild needs it."""

    sha256: str
    source: CodeSource
    """The commit as a full SHA; still to be checked by ``parse_source``."""
    lockfile: str
    """The Cargo.lock that the build made itself; empty where the repository has one."""
    circumstances: dict[str, Any]
    """What may explain other bytes: see ``circumstances``."""


def read_claim(untrusted_text: bytes) -> Claim:
    """What the text of a provenance claims.

    Raises:
        BuildError: ``invalid_request``, for what is no provenance of this kind.
    """
    try:
        untrusted = json.loads(untrusted_text)
        definition = untrusted["predicate"]["buildDefinition"]
        if definition["buildType"] != BUILD_TYPE:
            raise ValueError(definition["buildType"])
        asked, sha256 = definition["externalParameters"], untrusted["subject"][0]["digest"]["sha256"]
        lockfile = definition["internalParameters"]["lockfile"].get("content", "")
        if not (_IS_SHA256.fullmatch(sha256) and is_full_sha(asked["commit"]) and isinstance(lockfile, str)):
            raise ValueError
        source = CodeSource(repo=asked["repo"], commit=asked["commit"], build_target=asked["target"])
        return Claim(sha256, source, lockfile, circumstances(untrusted))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        remedy = "Give the file that `offchainvm build` wrote beside the module."
        raise BuildError(BuildCode.INVALID_REQUEST, "This is no provenance that can be read here.", remedy=remedy) from error


def circumstances(statement: dict[str, Any]) -> dict[str, Any]:
    """What besides the source decides on the bytes, by the words that a person is shown."""
    definition = statement["predicate"]["buildDefinition"]
    inner = definition["internalParameters"]
    return {
        "builder image": definition["resolvedDependencies"][1]["digest"]["layers"],
        "toolchain": statement["predicate"]["runDetails"]["builder"]["version"]["toolchain"],
        "source tree": definition["resolvedDependencies"][0]["digest"]["gitTree"],
        "Cargo.lock": inner["lockfile"]["sha256"],
        "cargo's arguments": inner["cargo"],
        "environment": inner["environment"],
        # Of a release that did not note them nothing is known.
        **({"the sandbox's scripts": inner["scripts"]} if "scripts" in inner else {}),
    }


def made_lockfile(statement: dict[str, Any]) -> bool:
    """Whether the repository had no Cargo.lock, so that one was made or brought along."""
    return bool(statement["predicate"]["buildDefinition"]["internalParameters"]["lockfile"]["made_by_build"])


@dataclass(frozen=True)
class Facts:
    """What is known of a build that ended well."""

    request: BuildRequest
    project: Project
    module_sha256: str
    module_size: int
    """In bytes."""
    git_tree: str
    lockfile: str
    lockfile_made: bool
    """The build made it itself, or another one before: it is kept, so that a rebuild can use the same."""
    image: ImageRecord
    toolchain: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    scripts: Mapping[str, str]
    """Of the sandbox: by their names."""
    log: str
    build_id: str
    reproducible: str
    started_at: datetime
    finished_at: datetime


def statement(facts: Facts) -> dict[str, Any]:
    """The statement of a build."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": facts.project.file_name, "digest": {"sha256": facts.module_sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": _definition(facts), "runDetails": _details(facts)},
    }


def _definition(facts: Facts) -> dict[str, Any]:
    """What the build was given."""
    source, commit = facts.request.source, facts.request.commit_sha
    lockfile = {"sha256": _sha256(facts.lockfile), "made_by_build": facts.lockfile_made}
    uri = f"git+https://github.com/{source.owner}/{source.name}@{commit}"
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {"repo": source.repo, "commit": commit, "ref": source.ref, "target": source.target},
        "internalParameters": {
            "package": facts.project.package,
            "cargo": list(facts.arguments),
            "environment": dict(facts.environment),
            "scripts": {name: _sha256(text) for name, text in facts.scripts.items()},
            "limits": asdict(facts.request.limits),
            "lockfile": {**lockfile, **({"content": facts.lockfile} if facts.lockfile_made else {})},
        },
        "resolvedDependencies": [
            {"uri": uri, "digest": {"gitCommit": commit, "gitTree": facts.git_tree}},
            {"name": facts.image.image, "digest": {"layers": list(facts.image.layers)}},
        ],
    }


def _details(facts: Facts) -> dict[str, Any]:
    """How it went."""
    return {
        "builder": {"id": "urn:offchainvm:builder", "version": {"toolchain": facts.toolchain}},
        "metadata": {
            "invocationId": facts.build_id,
            "startedOn": facts.started_at.isoformat(),
            "finishedOn": facts.finished_at.isoformat(),
            "reproducible": facts.reproducible,
        },
        "byproducts": [
            {"name": "log", "digest": {"sha256": _sha256(facts.log)}},
            {"name": "size", "annotations": {"bytes": facts.module_size}},
        ],
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
