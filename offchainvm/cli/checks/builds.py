"""Whether builds can run here: the container engine and the builder image."""

from __future__ import annotations

import contextlib

from offchainvm.compiler import engine, image
from offchainvm.errors import OffchainVMError
from offchainvm.settings import load_only


def check_docker() -> str:
    """A container engine answers."""
    with contextlib.closing(engine.connect()) as client:
        version = client.version()
    return f"engine {version.get('Version')}, API {version.get('ApiVersion')}"


def check_builder_image() -> str:
    """The builder image is there, and is the recorded one. Looks only: what a build would record is not recorded here."""
    settings = load_only(["builder_image", "state_dir"])
    name = settings.builder_image
    with contextlib.closing(engine.connect()) as client:
        layers = image.find_layers(client, name)
    if layers is None:
        raise OffchainVMError(f"The builder image {name} is missing.", remedy="Run `make builder-image`.")
    record = image.read_record(settings.state_dir, name)
    if record is None:
        return f"{name}; the first build will record its layers"
    if record.layers != layers:
        raise OffchainVMError(
            f"The builder image {name} is not the one that was recorded on this worker.",
            remedy=f"Run `make builder-image`, or remove {image.RECORD_NAME} in STATE_DIR to trust the new one.",
        )
    return f"{name}, {record.toolchain or record.origin}"
