"""The builder image: made by its Dockerfile, known by its layers, and what it can build."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builds import LIBRARY

from offchainvm.compiler import image
from offchainvm.compiler.base import BuildEvent, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.engine.module import check_module
from offchainvm.errors import ImageMismatch, Unavailable
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

Build = Callable[..., BuiltModule]
Publish = Callable[..., str]
Derive = Callable[[str], str]
# A registry where nobody listens.
PINNED = f"127.0.0.1:1/rust:1.90-slim@sha256:{'0' * 64}"
# Answers as a toolchain before 1.78 does: it knows the WASI target by its old name, and has its library there.
OLD_TOOLCHAIN = r"""
RUN real=$(rustup which rustc 2> /dev/null || command -v rustc) && mkdir -p /old/lib/rustlib && cd /old/lib/rustlib \
    && cp -rs "$(rustc --print sysroot)/lib/rustlib/." . && mv wasm32-wasip1 wasm32-wasi && rm -r wasm32-unknown-unknown \
    && mv "$real" "$real-new" && printf '%s\n' '#!/bin/sh' '[ "$*" != "--print sysroot" ] || { echo /old; exit; }' \
       'for word do shift; [ "$word" != wasm32-wasi ] || word=wasm32-wasip1; set -- "$@" "$word"; done; exec "$0-new" "$@"' \
       > "$real" && chmod 755 "$real"
"""

CALLS_C = """extern "C" { fn answer(n: i32) -> i32; }
#[no_mangle] pub extern "C" fn execute(_p: i32, n: i32) -> i32 { unsafe { answer(n) } }
"""


@pytest.fixture(scope="module")
def derive(client: DockerClient, state_dir: Path) -> Iterator[Derive]:
    """Make an image with more instructions on top of the builder image; its name."""
    made = list[str]()

    def run(instructions: str) -> str:
        name = f"offchainvm-test-{uuid.uuid4().hex[:12]}"
        dockerfile = f"FROM {load_only(['builder_image']).builder_image}\n{instructions}\n"
        client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=name, rm=True, forcerm=True)
        made.append(name)
        return name

    yield run
    for name in made:
        client.images.remove(name, force=True)


@pytest.fixture(scope="module")
def old_image(derive: Derive) -> str:
    """One with an old toolchain, which has WASI alone."""
    return derive(OLD_TOOLCHAIN)


def test_an_image_of_another_release_is_refused_and_made_anew_from_the_dockerfile(
    client: DockerClient, derive: Derive, state_dir: Path, tmp_path: Path
) -> None:
    """The base is one that has no rustup, and the targets already."""
    base, said = load_only(["builder_image"]).builder_image, list[str]()
    name = derive(f"LABEL {image.LABEL_RECIPE}=debian-0123456789abcdef")
    with pytest.raises(ImageMismatch, match="make builder-image"):
        image.check_image(client, name, state_dir=tmp_path)

    made = image.make_image(client, name, base_image=base, state_dir=tmp_path, say=said.append)

    assert made.origin == "dockerfile"
    assert set(made.targets) >= {"wasm32-unknown-unknown", "wasm32-wasip1"}
    assert "clang" in made.c_compiler
    assert made.toolchain.startswith("rustc 1.")
    assert any("made anew" in line for line in said)
    assert image.check_image(client, name, state_dir=tmp_path, base_image=base).record == made
    with pytest.raises(ImageMismatch, match=f"was made on {base}, and DOCKER_IMAGE names {PINNED}"):
        image.check_image(client, name, state_dir=tmp_path, base_image=PINNED)
    assert image.make_image(client, name, base_image=base, state_dir=tmp_path, say=said.append) == made
    assert "is there" in said[-1]

    # Other layers under the same name.
    image.write_record(tmp_path, image.ImageRecord(name, ("sha256:other",), "dockerfile", "2026-01-01"))
    with pytest.raises(ImageMismatch, match="not the one that was recorded"):
        image.check_image(client, name, state_dir=tmp_path)


def test_a_base_pinned_by_its_digest_is_that_one_or_none(client: DockerClient, derive: Derive, tmp_path: Path) -> None:
    """Debian packages stand in for a base that is not to be had, unless it is pinned: when the image is made, and when a worker starts."""
    name = derive(f'LABEL {image.LABEL_RECIPE}={image._recipes()["debian"]} {image.LABEL_BASE}=""')
    assert image.check_image(client, name, state_dir=tmp_path, base_image="rust:1.90")
    builder = SandboxBuilder(image=name, state_dir=tmp_path, owner="x", base_image=PINNED)
    with pytest.raises(ImageMismatch, match=f"out of Debian packages, and DOCKER_IMAGE names {PINNED}"):
        builder.check()

    with pytest.raises(Unavailable, match=f"{PINNED} is not to be had here, and its digest allows no other"):
        image.make_image(client, "offchainvm-no-such-image", base_image=PINNED, state_dir=tmp_path, say=print)


def test_an_image_that_is_missing_is_asked_for(client: DockerClient, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="make builder-image"):
        image.check_image(client, "offchainvm-no-such-image", state_dir=tmp_path)


def test_a_base_without_what_builds_need_is_told_in_its_own_words(client: DockerClient, old_image: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no standard library for wasm32-unknown-unknown"):
        image.make_image(client, f"{old_image}-made", base_image=old_image, state_dir=tmp_path, say=print)


@pytest.fixture
def of_old_image(old_image: str, builder: SandboxBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test's builder use that image."""
    monkeypatch.setattr(builder, "_image", old_image)
    monkeypatch.setattr(builder, "_state_dir", tmp_path)


@pytest.mark.usefixtures("of_old_image")
def test_a_toolchain_that_knows_wasi_by_its_old_name_builds_for_it(build: Build, publish: Publish) -> None:
    events = list[BuildEvent]()

    built = build(publish(), target="wasm32-wasip1", on_event=events.append)

    assert "--target wasm32-wasi " in next(event.text for event in events if event.phase == "compile")
    definition = built.provenance["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["target"] == "wasm32-wasip1"
    assert "wasm32-wasi" in definition["internalParameters"]["cargo"]


@pytest.mark.usefixtures("of_old_image")
def test_an_image_without_the_target_is_the_operators_trouble(build: Build, publish: Publish) -> None:
    with pytest.raises(ImageMismatch, match=r"no standard library for wasm32-unknown-unknown; it has wasm32-wasi(, wasm32-wasip2)?\."):
        build(publish())


def test_c_inside_a_crate_is_compiled_by_hand(build: Build, publish: Publish) -> None:
    """For a target without a C library."""
    by_hand = """
fn main() {
    let names = ["OUT_DIR", "CC_wasm32_unknown_unknown", "AR_wasm32_unknown_unknown"];
    let [out, compiler, archiver] = names.map(|name| std::env::var(name).unwrap());
    let run = |program: &str, arguments: &[&str]| assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    let (object, archive) = (format!("{out}/answer.o"), format!("{out}/libanswer.a"));
    run(&compiler, &["--target=wasm32-unknown-unknown", "-O2", "-c", "src/answer.c", "-o", &object]);
    run(&archiver, &["crs", &archive, &object]);
    println!("cargo:rustc-link-search=native={out}\\ncargo:rustc-link-lib=static=answer");
}
"""
    files = {
        "build.rs": by_hand,
        "src/answer.c": "#include <stdint.h>\nint32_t answer(int32_t n) { return n * 7 + 42; }\n",
        "src/lib.rs": CALLS_C,
    }
    assert check_module(build(publish(files)).wasm).entry == "execute"


@pytest.mark.usefixtures("real_registry")
def test_c_inside_a_crate_is_compiled_by_the_cc_crate(build: Build, publish: Publish) -> None:
    """For WASI with a C library."""
    files = {
        "build.rs": 'fn main() { cc::Build::new().file("src/answer.c").compile("answer"); }\n',
        "src/answer.c": '#include <stdio.h>\nint answer(int n) { char text[32]; return snprintf(text, sizeof text, "%d", n); }\n',
        "src/lib.rs": CALLS_C,
        "Cargo.toml": f'{LIBRARY}[build-dependencies]\ncc = "1"\n',
    }
    commit_sha = publish(files, without=("Cargo.lock",))
    assert check_module(build(commit_sha, target="wasm32-wasip1").wasm).entry == "execute"
