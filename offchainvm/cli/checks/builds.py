"""Whether builds can run here: the container engine, the builder image, the memory, and the host that has the sources."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit

import requests

from offchainvm.authorities import TlsAdapter, tls_context
from offchainvm.compiler import engine, image
from offchainvm.compiler.limits import BuildLimits
from offchainvm.errors import OffchainVMError, Unavailable
from offchainvm.near.transport import host_of
from offchainvm.settings import load_only

_SOURCE_SECONDS = 5.0


def check_docker() -> str:
    """A container engine answers, and has the runtime and the network of builds."""
    settings = load_only(["docker_runtime", "build_network"])
    with contextlib.closing(engine.connect()) as client:
        version, runtime = client.version(), engine.find_machine(client, settings.docker_runtime).runtime
        network = engine.check_network(client, settings.build_network)
    return (
        f"engine {version.get('Version')}, API {version.get('ApiVersion')}, builds in runtime {runtime}, fetches through network {network}"
    )


def check_builder_image() -> str:
    """The builder image is there, and is the recorded one. Looks only: what a build would record is not recorded here."""
    settings = load_only(["docker_image", "builder_image", "state_dir"])
    name, base = settings.builder_image, settings.docker_image
    with contextlib.closing(engine.connect()) as client:
        record = image.compare_image(client, name, state_dir=settings.state_dir, base_image=base)
    return f"{name}, {record.summary}" if record else f"{name}; the first build will record its layers"


def check_memory() -> str:
    """The engine's machine has the memory that one build may take."""
    limits = BuildLimits.from_settings(load_only(["compile_memory_limit_mb", "build_disk_mb"]))
    with contextlib.closing(engine.connect()) as client:
        machine_mb = engine.find_machine(client).memory_mb
    one = limits.machine_memory_mb
    if limits.compile_memory_mb > machine_mb:
        raise OffchainVMError(
            f"A build may take {limits.compile_memory_mb} MiB (COMPILE_MEMORY_LIMIT_MB + BUILD_DISK_MB): more than the {machine_mb} MiB of "
            "the engine's machine.",
            remedy="Lower COMPILE_MEMORY_LIMIT_MB or BUILD_DISK_MB, or build on a larger machine.",
        )
    return f"a build may take {one} of the machine's {machine_mb} MiB, all its files included: at most {max(1, machine_mb // one)} at once"


def check_source_host() -> str:
    """GitHub, or the mirror that stands for it, answers. A repository that is private or gone is told by its job's error."""
    settings = load_only(["source_mirror_url", "ca_bundle"])
    url = settings.source_mirror_url or "https://github.com/"
    if urlsplit(url).scheme == "file":
        folder = Path(url.removeprefix("file://"))
        if not folder.is_dir():
            raise OffchainVMError(f"{folder} is not there.", remedy="Correct SOURCE_MIRROR_URL.")
        return str(folder)
    name, remedy = host_of(url), "Let this host reach it, or name a mirror by SOURCE_MIRROR_URL (CA_BUNDLE for its certificate)."
    try:
        with requests.Session() as session:
            session.mount("https://", TlsAdapter(tls_context(settings.ca_bundle)))
            reply = session.head(url, timeout=_SOURCE_SECONDS, allow_redirects=False)
    except requests.RequestException:
        # Without its cause: the text may hold the URL, and the password in it.
        raise Unavailable("source", f"{name} does not answer.", remedy=remedy) from None
    if reply.status_code == 401 or reply.status_code >= 500:
        raise Unavailable("source", f"{name} answers HTTP {reply.status_code}.", remedy=remedy)
    return f"{name} answers"
