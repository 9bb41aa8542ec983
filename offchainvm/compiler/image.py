"""The builder image: what builds run in, known by its layers.

``python -m offchainvm.compiler.image`` makes it where it is missing. An image's Id changes with each import of the
same files, its layers do not: they are recorded in the state folder when the image is made, and compared before use.
A label says by which recipe it was made, so that one of an earlier release is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker.errors

from offchainvm import settings
from offchainvm.compiler import bootstrap, engine, reaper, sandbox
from offchainvm.compiler.logtext import clean_text
from offchainvm.errors import BuildError, ImageMismatch, OffchainVMError, Unavailable
from offchainvm.logs import get_logger

if TYPE_CHECKING:
    from docker.client import DockerClient

log = get_logger()
DOCKERFILE = Path(__file__).parents[2] / "deploy" / "builder" / "Dockerfile"
RECORD_NAME = "builder-image.json"
LABEL_RECIPE, LABEL_BASE = "offchainvm.recipe", "offchainvm.base"
_REMEDY = "Run `make builder-image`."
_DESCRIBE_SECONDS = 60
Say = Callable[[str], None]


@dataclass(frozen=True)
class ImageRecord:
    """What was known about the builder image when it was made."""

    image: str
    layers: tuple[str, ...]
    """The diff ids of its layers, ``sha256:…``."""
    origin: str
    """``dockerfile``, ``debian``, or ``found`` when it was not made here."""
    recorded_at: str
    toolchain: str = ""
    """``rustc -V``."""
    c_compiler: str = ""
    """The first line of ``clang --version``; empty where there is none."""
    targets: tuple[str, ...] = ()
    """The WASM targets that have a standard library in it, by the toolchain's own names."""

    @property
    def summary(self) -> str:
        """What it builds with, for a person."""
        return f"{self.toolchain or 'an unknown toolchain'} for {', '.join(self.targets) or 'no target'}, C: {self.c_compiler or 'none'}"


@dataclass(frozen=True)
class CheckedImage:
    """An image that is the one to build in."""

    id: str
    """By which the engine runs these very layers, whatever the name comes to mean."""
    record: ImageRecord


def find_layers(client: DockerClient, image: str) -> tuple[str, ...] | None:
    """The layers of ``image``, or None where the engine does not have it."""
    attributes = _attributes(client, image)
    return None if attributes is None else _layers(attributes)


def check_image(client: DockerClient, image: str, *, state_dir: Path, base_image: str = "") -> CheckedImage:
    """``image``, whose layers are those that were recorded; one found without a record gets one.

    Args:
        base_image: what it should have been made on; empty = anything.

    Raises:
        Unavailable: the engine has no such image, or is away (service ``docker``).
        ImageMismatch: the image is not the recorded one, or one that was made by another release or on another base.
    """
    attributes = _present(client, image)
    record = _compared(attributes, image, state_dir, base_image)
    if record is None:
        log.warning("A builder image without a record was found: its layers are trusted from now on.", action="image_found", image=image)
        record = _record(client, image, attributes, state_dir, origin="found")
    return CheckedImage(str(attributes["Id"]), record)


def compare_image(client: DockerClient, image: str, *, state_dir: Path, base_image: str = "") -> ImageRecord | None:
    """As ``check_image``, but nothing is recorded: None where there is no record yet."""
    return _compared(_present(client, image), image, state_dir, base_image)


def _compared(attributes: dict[str, Any], image: str, state_dir: Path, base_image: str) -> ImageRecord | None:
    labels = _labels(attributes)
    if labels.get(LABEL_RECIPE) and not _is_current(labels):
        raise ImageMismatch(f"The builder image {image} was made by another release, with other contents.", remedy=_REMEDY)
    if labels.get(LABEL_RECIPE) and not _is_on(labels, base_image):
        found = f"on {labels[LABEL_BASE]}" if labels.get(LABEL_BASE) else "out of Debian packages"
        raise ImageMismatch(f"The builder image {image} was made {found}, and DOCKER_IMAGE names {base_image}.", remedy=_REMEDY)
    record = read_record(state_dir, image)
    if record is not None and record.layers != _layers(attributes):
        raise ImageMismatch(
            f"The builder image {image} is not the one that was recorded on this worker.",
            remedy=f"Run `make builder-image`, or remove {RECORD_NAME} in STATE_DIR to trust the new one.",
        )
    return record


def make_image(
    client: DockerClient, image: str, *, base_image: str, state_dir: Path, say: Say, mirror: str = "", force: bool = False
) -> ImageRecord:
    """Make ``image`` where the engine has none of today's recipe: on ``base_image`` where that is to be had, else from Debian packages.

    Args:
        say: gets a line of progress now and then.
        mirror: Debian mirror; empty = the one of this machine's apt sources.
        force: make it anew even when it is there.

    Raises:
        Unavailable: neither way is open here, or the base is not to be had and no other will do; the text says what is missing.
    """
    attributes = None if force else _attributes(client, image)
    if attributes is not None and _is_current(_labels(attributes)) and _is_on(_labels(attributes), base_image):
        say(f"The builder image {image} is there.")
        record = read_record(state_dir, image)
        return record if record and record.layers == _layers(attributes) else _record(client, image, attributes, state_dir, origin="found")
    if attributes is not None:
        say(f"The builder image {image} was made with other contents than this release asks for, or on another base: it is made anew.")
    with engine.translated():
        origin = "dockerfile" if _have_base(client, base_image, say) else "debian"
        if origin == "dockerfile":
            _from_dockerfile(client, image, base_image, say)
        else:
            _from_debian(client, image, mirror, say)
    record = _record(client, image, _present(client, image), state_dir, origin=origin)
    say(f"Made {image}: {record.summary}.")
    return record


def read_record(state_dir: Path, image: str) -> ImageRecord | None:
    """What this worker has recorded about ``image``."""
    try:
        values = json.loads((state_dir.expanduser() / RECORD_NAME).read_text())
        record = ImageRecord(**{**values, "layers": tuple(values["layers"]), "targets": tuple(values.get("targets", ()))})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if record.image == image else None


def write_record(state_dir: Path, record: ImageRecord) -> ImageRecord:
    """Record an image as the one to trust."""
    folder = state_dir.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=RECORD_NAME, delete=False) as file:
        json.dump(asdict(record), file, indent=1)
    Path(file.name).replace(folder / RECORD_NAME)
    return record


def _record(client: DockerClient, image: str, attributes: dict[str, Any], state_dir: Path, *, origin: str) -> ImageRecord:
    """Ask ``image`` what it builds with, and record it."""
    toolchain, c_compiler, *targets = _describe(client, image, str(attributes["Id"])).split("\n")
    if not toolchain:
        raise ImageMismatch(f"The builder image {image} has no Rust compiler.", remedy=_REMEDY)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    known = tuple(name for name in targets if name)
    return write_record(state_dir, ImageRecord(image, _layers(attributes), origin, now, toolchain, c_compiler, known))


def _describe(client: DockerClient, image: str, image_id: str) -> str:
    """The answer of describe.sh: two lines at least."""
    script = sandbox.read_script("toolchain.sh") + sandbox.read_script("describe.sh")
    phase = sandbox.Phase("describe", "describe.sh", memory_mb=512, cpus=1, processes=64, timeout_seconds=_DESCRIBE_SECONDS)
    options = {**sandbox.container_options(phase, log_bytes=2**20), "detach": False}
    labels = reaper.labels("image", uuid.uuid4().hex[:16], lifetime_seconds=2 * _DESCRIBE_SECONDS)
    try:
        with engine.translated():
            output: bytes = client.containers.run(image_id, sandbox.command(phase, script), remove=True, labels=labels, **options)
    except BuildError as error:
        raise ImageMismatch(f"The builder image {image} cannot be run: {error.sentence}", remedy=_REMEDY) from error
    return output.decode("utf-8", "replace")


def _present(client: DockerClient, image: str) -> dict[str, Any]:
    attributes = _attributes(client, image)
    if attributes is None:
        raise Unavailable("docker", f"The builder image {image} is missing.", remedy=_REMEDY)
    return attributes


def _attributes(client: DockerClient, image: str) -> dict[str, Any] | None:
    with engine.translated():
        try:
            attributes: dict[str, Any] = client.images.get(image).attrs
        except docker.errors.ImageNotFound:
            return None
    return attributes


def _layers(attributes: dict[str, Any]) -> tuple[str, ...]:
    return tuple(attributes["RootFS"].get("Layers") or ())


def _labels(attributes: dict[str, Any]) -> dict[str, str]:
    return (attributes.get("Config") or {}).get("Labels") or {}


def _is_current(labels: dict[str, str]) -> bool:
    """Whether its label names a recipe of today."""
    made_by, today = labels.get(LABEL_RECIPE, ""), _recipes()
    return made_by == (today.get("dockerfile", made_by) if made_by.startswith("dockerfile-") else today["debian"])


def _is_on(labels: dict[str, str], base_image: str) -> bool:
    """Whether it was made on ``base_image``; Debian packages stand in for a base that is not pinned."""
    base = labels.get(LABEL_BASE, "")
    return base_image in {"", base} or not (base or _is_pinned(base_image))


def _is_pinned(base_image: str) -> bool:
    return "@" in base_image


def _recipes() -> dict[str, str]:
    """Today's recipes by origin. An installed package has no Dockerfile beside it, and cannot judge what that made."""
    texts = {"debian": bootstrap.recipe(), **({"dockerfile": DOCKERFILE.read_text()} if DOCKERFILE.is_file() else {})}
    return {origin: f"{origin}-{hashlib.sha256(text.encode()).hexdigest()[:16]}" for origin, text in texts.items()}


def _have_base(client: DockerClient, base_image: str, say: Say) -> bool:
    if not DOCKERFILE.is_file():
        return False
    if find_layers(client, base_image) is not None:
        return True
    say(f"Asking the registry for {base_image} …")
    try:
        client.images.pull(base_image)
    except docker.errors.APIError as error:
        if _is_pinned(base_image):
            remedy = "Let this machine reach its registry, or correct DOCKER_IMAGE; without a digest, Debian packages may stand in for it."
            raise Unavailable("docker", f"{base_image} is not to be had here, and its digest allows no other.", remedy=remedy) from error
        say(f"{base_image} is not to be had here: making the image from Debian packages instead.")
        return False
    return True


def _from_dockerfile(client: DockerClient, image: str, base_image: str, say: Say) -> None:
    say(f"Building {image} on {base_image} …")
    digests = client.images.get(base_image).attrs.get("RepoDigests")
    if digests and not _is_pinned(base_image):
        say(f"  A base by this name may change; this one is pinned by DOCKER_IMAGE={digests[0]}")
    labels = {LABEL_RECIPE: _recipes()["dockerfile"], LABEL_BASE: base_image}
    answers = client.api.build(
        path=str(DOCKERFILE.parent), tag=image, buildargs={"BASE_IMAGE": base_image}, labels=labels, rm=True, forcerm=True, decode=True
    )
    said = deque[str](maxlen=20)
    for answer in answers:
        if "error" in answer:
            reason = " ".join([*said][-3:])
            raise Unavailable("docker", f"The builder image could not be made on {base_image}: {answer['error']}: {reason}")
        for line in clean_text(str(answer.get("stream", "")).encode()).splitlines():
            said.append(line.strip())
            say(f"  {line.strip()}")


def _from_debian(client: DockerClient, image: str, mirror: str, say: Say) -> None:
    with bootstrap.debian_archive(say=say, mirror=mirror) as archive:
        import_archive(client, image, archive, say=say, labels={LABEL_RECIPE: _recipes()["debian"]})


def import_archive(client: DockerClient, image: str, archive: Path, *, say: Say, labels: Mapping[str, str] | None = None) -> None:
    """Make an image of a file system in a tar archive.

    Raises:
        Unavailable: the engine does not take it.
    """
    say("Importing it into the engine …")
    name, _, tag = image.partition(":")
    changes = ["ENV LANG=C.UTF-8", *(f"LABEL {key}={value}" for key, value in (labels or {}).items())]
    answer = client.api.import_image(src=str(archive), repository=name, tag=tag or "latest", changes=changes)
    if "error" in answer:
        raise Unavailable("docker", f"The engine did not take the image: {answer.strip()[-300:]}")


def main() -> int:
    """``python -m offchainvm.compiler.image``: make the builder image; 0 when it is there."""
    parser = argparse.ArgumentParser(prog="python -m offchainvm.compiler.image", description="Make the builder image where it is missing.")
    parser.add_argument("--force", action="store_true", help="make it anew")
    parser.add_argument("--mirror", default="", help="Debian mirror; default: the one of this machine's apt sources")
    arguments = parser.parse_args()
    try:
        # A machine that makes images need not be a configured worker.
        values = settings.load_only(["docker_image", "builder_image", "state_dir"])
        with contextlib.closing(engine.connect()) as client:
            make_image(
                client,
                values.builder_image,
                base_image=values.docker_image,
                state_dir=values.state_dir,
                say=lambda line: print(line, flush=True),
                mirror=arguments.mirror,
                force=arguments.force,
            )
    except OffchainVMError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
