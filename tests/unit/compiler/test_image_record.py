"""What an image is recorded as: by its own words, and refused where it has no compiler or cannot be asked."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from offchainvm.compiler import image
from offchainvm.errors import ImageMismatch

ATTRIBUTES = {"Id": "sha256:1", "RootFS": {"Layers": ["sha256:2"]}, "Config": {"Labels": {}}}
SCRIPTS = resources.files("offchainvm.compiler") / "scripts"


def described(folder: Path, **programs: str) -> str:
    """What describe.sh says where these are the only programs besides the usual ones of a shell."""
    for name in ("sh", "basename", "dirname", "find", "grep", "head"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    script = "".join((SCRIPTS / name).read_text() for name in ("toolchain.sh", "describe.sh"))
    return subprocess.run(["sh", "-c", script], env={"PATH": str(folder)}, capture_output=True, text=True, check=True).stdout


def recorded(state_dir: Path, answer: str | Exception) -> image.CheckedImage:
    """The image as it is recorded when it gives this answer."""

    def run(image_id: str, *_: object, **__: object) -> bytes:
        assert image_id == "sha256:1"
        if isinstance(answer, Exception):
            raise answer
        return answer.encode()

    images = SimpleNamespace(get=lambda _: SimpleNamespace(attrs=ATTRIBUTES))
    client: Any = SimpleNamespace(images=images, containers=SimpleNamespace(run=run))
    return image.check_image(client, "builder", state_dir=state_dir)


@pytest.mark.parametrize("clang", ["", "clang version 2"])
def test_an_image_with_or_without_a_c_compiler_is_recorded_as_it_is(tmp_path: Path, clang: str) -> None:
    (tmp_path / "root/lib/rustlib/wasm32-wasip1/lib").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    rustc = f'[ "$1" = -V ] && echo rustc 1.2.3 || echo {tmp_path}/root'
    programs = {"rustc": rustc, **({"clang": f"echo {clang}"} if clang else {})}

    found = recorded(tmp_path, described(tmp_path / "bin", **programs))

    assert found.id == "sha256:1"
    assert (found.record.toolchain, found.record.c_compiler, found.record.targets) == ("rustc 1.2.3", clang, ("wasm32-wasip1",))
    assert found.record.layers == ("sha256:2",)


def test_an_image_without_a_rust_compiler_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()

    with pytest.raises(ImageMismatch, match="builder has no Rust compiler"):
        recorded(tmp_path, described(tmp_path / "bin"))
    assert not (tmp_path / image.RECORD_NAME).exists()


@pytest.mark.parametrize("error", [docker.errors.ContainerError("c", 127, "x", "builder", b""), docker.errors.APIError("no sh")])
def test_an_image_that_cannot_be_run_is_no_engine_that_is_away(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(ImageMismatch, match="builder cannot be run"):
        recorded(tmp_path, error)
