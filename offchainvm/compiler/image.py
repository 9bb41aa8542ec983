"""The builder image: what builds run in, known by its layers.

``python -m offchainvm.compiler.image`` makes it where it is missing. An image's Id changes with each import of the
same files, its layers do not: they are recorded in the state folder when the image is made, and compared before use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors

from offchainvm import settings
from offchainvm.compiler import bootstrap, engine
from offchainvm.errors import BuildCode, BuildError, OffchainVMError, Unavailable
from offchainvm.logs import get_logger

if TYPE_CHECKING:
    from docker.client import DockerClient

log = get_logger()
DOCKERFILE = Path(__file__).parents[2] / "deploy" / "builder" / "Dockerfile"
RECORD_NAME = "builder-image.json"
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


def find_layers(client: DockerClient, image: str) -> tuple[str, ...] | None:
    """The layers of ``image``, or None where the engine does not have it."""
    with engine.translated():
        try:
            attributes = client.images.get(image).attrs
        except docker.errors.ImageNotFound:
            return None
    return tuple(attributes["RootFS"].get("Layers") or ())


def check_image(client: DockerClient, image: str, *, state_dir: Path) -> ImageRecord:
    """The record of ``image``, whose layers are those that were recorded; one found without a record gets one.

    Raises:
        Unavailable: the engine has no such image, or is away (service ``docker``).
        BuildError: ``image_mismatch``, when the image is not the recorded one.
    """
    layers = find_layers(client, image)
    if layers is None:
        raise Unavailable("docker", f"The builder image {image} is missing.", remedy="Run `make builder-image`.")
    record = read_record(state_dir, image)
    if record is None:
        log.warning("A builder image without a record was found: its layers are trusted from now on.", action="image_found", image=image)
        return write_record(state_dir, image, layers, origin="found")
    if record.layers != layers:
        raise BuildError(
            BuildCode.IMAGE_MISMATCH,
            f"The builder image {image} is not the one that was recorded on this worker.",
            remedy=f"Run `make builder-image`, or remove {RECORD_NAME} in STATE_DIR to trust the new one.",
        )
    return record


def make_image(
    client: DockerClient, image: str, *, base_image: str, state_dir: Path, say: Say, mirror: str = "", force: bool = False
) -> ImageRecord:
    """Make ``image`` where the engine has none: on ``base_image`` where that is to be had, else from Debian packages.

    Args:
        say: gets a line of progress now and then.
        mirror: Debian mirror; empty = the one of this machine's apt sources.
        force: make it anew even when it is there.

    Raises:
        Unavailable: neither way is open here; the text says what is missing.
    """
    layers = None if force else find_layers(client, image)
    if layers is not None:
        say(f"The builder image {image} is there.")
        record = read_record(state_dir, image)
        return record if record and record.layers == layers else write_record(state_dir, image, layers, origin="found")
    with engine.translated():
        origin = "dockerfile" if _have_base(client, base_image, say) else "debian"
        if origin == "dockerfile":
            _from_dockerfile(client, image, base_image, say)
        else:
            _from_debian(client, image, mirror, say)
        toolchain = _toolchain(client, image)
    say(f"Made {image}: {toolchain}.")
    return write_record(state_dir, image, find_layers(client, image) or (), origin=origin, toolchain=toolchain)


def read_record(state_dir: Path, image: str) -> ImageRecord | None:
    """What this worker has recorded about ``image``."""
    try:
        values = json.loads((state_dir.expanduser() / RECORD_NAME).read_text())
        record = ImageRecord(**{**values, "layers": tuple(values["layers"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if record.image == image else None


def write_record(state_dir: Path, image: str, layers: tuple[str, ...], *, origin: str, toolchain: str = "") -> ImageRecord:
    """Record ``image`` as the one to trust."""
    folder = state_dir.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    record = ImageRecord(
        image=image,
        layers=layers,
        origin=origin,
        recorded_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        toolchain=toolchain,
    )
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=RECORD_NAME, delete=False) as file:
        json.dump(asdict(record), file, indent=1)
    Path(file.name).replace(folder / RECORD_NAME)
    return record


def _have_base(client: DockerClient, base_image: str, say: Say) -> bool:
    if not DOCKERFILE.is_file():
        return False
    if find_layers(client, base_image) is not None:
        return True
    say(f"Asking the registry for {base_image} …")
    try:
        client.images.pull(base_image)
    except docker.errors.APIError:
        say(f"{base_image} is not to be had here: making the image from Debian packages instead.")
        return False
    return True


def _from_dockerfile(client: DockerClient, image: str, base_image: str, say: Say) -> None:
    say(f"Building {image} on {base_image} …")
    try:
        client.images.build(path=str(DOCKERFILE.parent), tag=image, buildargs={"BASE_IMAGE": base_image}, rm=True, forcerm=True)
    except docker.errors.BuildError as error:
        raise Unavailable("docker", f"The builder image could not be made on {base_image}: {error.msg}") from error


def _from_debian(client: DockerClient, image: str, mirror: str, say: Say) -> None:
    with bootstrap.debian_archive(say=say, mirror=mirror) as archive:
        import_archive(client, image, archive, say=say)


def import_archive(client: DockerClient, image: str, archive: Path, *, say: Say) -> None:
    """Make an image of a file system in a tar archive.

    Raises:
        Unavailable: the engine does not take it.
    """
    say("Importing it into the engine …")
    name, _, tag = image.partition(":")
    answer = client.api.import_image(src=str(archive), repository=name, tag=tag or "latest", changes=["ENV LANG=C.UTF-8"])
    if "error" in answer:
        raise Unavailable("docker", f"The engine did not take the image: {answer.strip()[-300:]}")


def _toolchain(client: DockerClient, image: str) -> str:
    output: bytes = client.containers.run(image, ["rustc", "-V"], remove=True, network_mode="none", cap_drop=["ALL"])
    return output.decode("utf-8", "replace").strip()


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
