"""Where a module comes from, as an in-toto Statement v1 with a SLSA provenance v1 predicate."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.project import Project

BUILD_TYPE = "urn:offchainvm:cargo-wasm:v1"


def statement(
    *,
    request: BuildRequest,
    project: Project,
    module_sha256: str,
    module_size: int,
    git_tree: str,
    lockfile: str,
    lockfile_sha256: str,
    lockfile_made: bool,
    image: str,
    image_layers: tuple[str, ...],
    toolchain: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    log_sha256: str,
    build_id: str,
    reproducible: str,
    started_at: datetime,
    finished_at: datetime,
) -> dict[str, Any]:
    """The statement; a lock file that the build made itself is kept in it, so that a rebuild can use the same."""
    source = request.source
    uri = f"git+https://github.com/{source.owner}/{source.name}@{request.commit_sha}"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": project.file_name, "digest": {"sha256": module_sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"repo": source.repo, "commit": request.commit_sha, "ref": source.ref, "target": source.target},
                "internalParameters": {
                    "package": project.package,
                    "cargo": list(arguments),
                    "environment": environment,
                    "limits": asdict(request.limits),
                    "lockfile": {
                        "sha256": lockfile_sha256,
                        "made_by_build": lockfile_made,
                        **({"content": lockfile} if lockfile_made else {}),
                    },
                },
                "resolvedDependencies": [
                    {"uri": uri, "digest": {"gitCommit": request.commit_sha, "gitTree": git_tree}},
                    {"name": image, "digest": {"layers": list(image_layers)}},
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:offchainvm:builder", "version": {"toolchain": toolchain}},
                "metadata": {
                    "invocationId": build_id,
                    "startedOn": started_at.isoformat(),
                    "finishedOn": finished_at.isoformat(),
                    "reproducible": reproducible,
                },
                "byproducts": [{"name": "log", "digest": {"sha256": log_sha256}}, {"name": "size", "annotations": {"bytes": module_size}}],
            },
        },
    }
