"""The provenance of a build, word by word against what git, the engine and the files say for themselves."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from builds import SMALL, Build, Publish

from offchainvm.compiler import image, provenance, sandbox
from offchainvm.compiler.phases import COMPILE_ENVIRONMENT
from offchainvm.models import CodeSource
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_provenance_names_source_builder_and_product_and_keeps_the_lock_file_that_was_made(
    client: DockerClient, build: Build, publish: Publish, mirror: Path, state_dir: Path
) -> None:
    commit_sha = publish(without=("Cargo.lock",))
    git = ["git", "--git-dir", str(mirror / "someone" / "guest.git"), "rev-parse", f"{commit_sha}^{{tree}}"]
    tree = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    builder_image = load_only(["builder_image"]).builder_image

    built = build(commit_sha, limits=SMALL)

    told = json.loads(json.dumps(built.provenance))
    assert (told["_type"], told["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    assert told["subject"] == [{"name": "guest.wasm", "digest": {"sha256": sha256(built.wasm)}}]
    definition, details = told["predicate"]["buildDefinition"], told["predicate"]["runDetails"]
    assert definition["externalParameters"] == {
        "repo": "someone/guest", "commit": commit_sha, "ref": commit_sha, "target": "wasm32-unknown-unknown"
    }  # fmt: skip
    inner = definition["internalParameters"]
    assert inner["package"] == "guest"
    assert inner["cargo"][:5] == ["cargo", "build", "--offline", "--locked", "--release"]
    assert (inner["environment"], inner["limits"]) == (COMPILE_ENVIRONMENT, asdict(SMALL))
    assert inner["scripts"] == {name: sha256(sandbox.read_script(name).encode()) for name in ("toolchain.sh", "compile.sh")}
    assert inner["lockfile"]["made_by_build"] is True
    assert 'name = "guest"' in inner["lockfile"]["content"]
    assert sha256(inner["lockfile"]["content"].encode()) == inner["lockfile"]["sha256"]
    source, builder = definition["resolvedDependencies"]
    assert source == {
        "uri": f"git+https://github.com/someone/guest@{commit_sha}", "digest": {"gitCommit": commit_sha, "gitTree": tree}
    }  # fmt: skip
    assert builder == {"name": builder_image, "digest": {"layers": client.images.get(builder_image).attrs["RootFS"]["Layers"]}}
    record = image.read_record(state_dir, builder_image)
    assert record is not None
    assert details["builder"]["version"]["toolchain"].splitlines()[0] == record.toolchain
    assert "LLVM version" in details["builder"]["version"]["toolchain"]
    metadata, (log, size) = details["metadata"], details["byproducts"]
    assert datetime.fromisoformat(metadata["startedOn"]) < datetime.fromisoformat(metadata["finishedOn"])
    assert metadata["reproducible"] == "unchecked"
    assert built.log_path is not None
    assert log["digest"]["sha256"] == sha256(built.log_path.read_bytes())
    assert size["annotations"]["bytes"] == len(built.wasm)

    claim = provenance.read_claim(json.dumps(told).encode())
    wanted = CodeSource(repo="someone/guest", commit=commit_sha, build_target="wasm32-unknown-unknown")
    assert (claim.sha256, claim.source, claim.lockfile) == (built.sha256, wanted, inner["lockfile"]["content"])
