"""Whether builds can run here: the container engine and the builder image."""

from __future__ import annotations

import contextlib

from offchainvm.compiler import engine, image
from offchainvm.settings import load_only


def check_docker() -> str:
    """A container engine answers, and has the runtime of builds."""
    runtime = load_only(["docker_runtime"]).docker_runtime
    with contextlib.closing(engine.connect()) as client:
        version, used = client.version(), engine.check_runtime(client, runtime)
    return f"engine {version.get('Version')}, API {version.get('ApiVersion')}, builds in runtime {used}"


def check_builder_image() -> str:
    """The builder image is there, and is the recorded one. Looks only: what a build would record is not recorded here."""
    settings = load_only(["builder_image", "state_dir"])
    name = settings.builder_image
    with contextlib.closing(engine.connect()) as client:
        record = image.compare_image(client, name, state_dir=settings.state_dir)
    return f"{name}, {record.summary}" if record else f"{name}; the first build will record its layers"
