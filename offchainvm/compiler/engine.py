"""The container engine's client, with its errors turned into ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
import requests
from urllib3.exceptions import HTTPError

from offchainvm.errors import BuildCode, BuildError, OffchainVMError, Unavailable

if TYPE_CHECKING:
    from docker.client import DockerClient

API_TIMEOUT_SECONDS = 120
_USUAL_SOCKET = "/var/run/docker.sock"
_UNKNOWN_RUNTIME = re.compile("unknown (?:or invalid )?runtime", re.IGNORECASE)
_UNKNOWN_NETWORK = re.compile(r"network \S+ not found")
_REMEDY = "Start Docker, and let this user reach its socket (DOCKER_HOST)."


def connect() -> DockerClient:
    """A client of the engine that DOCKER_HOST names, or of the usual socket.

    Raises:
        Unavailable: no engine answers (service ``docker``).
    """
    if (socket := _unix_socket()) and not socket.exists():
        raise Unavailable("docker", f"There is no Docker engine here ({socket} does not exist).", remedy=_REMEDY)
    with translated():
        client = docker.from_env(timeout=API_TIMEOUT_SECONDS)
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
        return client


@dataclass(frozen=True)
class Machine:
    """What the engine's machine has for builds."""

    runtime: str
    """The container runtime that builds get."""
    own_kernel: bool
    """Whether that is gVisor's runsc, by whatever name: its kernel counts processes for itself."""
    cpus: int
    memory_mb: int


def find_machine(client: DockerClient, runtime: str = "") -> Machine:
    """The engine's machine, with ``runtime`` or, where it is empty, the engine's default.

    Raises:
        Unavailable: the engine does not know the runtime; the operator's trouble, so jobs wait.
    """
    with translated():
        info = client.info()
    runtimes = info["Runtimes"]
    if runtime and runtime not in runtimes:
        raise _no_runtime(f"The engine knows {', '.join(sorted(runtimes))}")
    name = runtime or str(info["DefaultRuntime"])
    return Machine(name, "runsc" in f"{name} {runtimes.get(name)}", int(info["NCPU"]), int(info["MemTotal"]) // 2**20)


def check_network(client: DockerClient, network: str) -> str:
    """``network``, which the networked phases of builds can join without being on the host's own.

    Raises:
        Unavailable: it is not there, is the host's, or leads nowhere by its kind; the operator's trouble, so jobs wait.
    """
    with translated():
        driver = str(client.networks.get(network).attrs["Driver"])
    if driver in {"host", "null"}:
        raise _no_network(f"{network} is of the kind {driver}")
    return network


def _no_network(said: str) -> Unavailable:
    remedy = "Mend BUILD_NETWORK, or make the network: `docker network create NAME`, with --internal where only mirrors may be reached."
    return Unavailable("docker", f"The network in BUILD_NETWORK cannot be used for builds: {said}.", remedy=remedy)


def _no_runtime(said: str) -> Unavailable:
    remedy = "Mend DOCKER_RUNTIME, or register the runtime in the engine's daemon.json and have it reload that (SIGHUP)."
    return Unavailable("docker", f"The container engine has no runtime by the name in DOCKER_RUNTIME. {said}.", remedy=remedy)


def _unix_socket() -> Path | None:
    host = os.environ.get("DOCKER_HOST") or f"unix://{_USUAL_SOCKET}"
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else None


@contextmanager
def translated(*, creating: bool = False) -> Iterator[None]:
    """Errors of the client as errors of this package: an engine that is away, an image that is missing, anything else.

    Args:
        creating: a container is created, by settings of the operator: what the engine refuses then is no job's fault.
    """
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise Unavailable("docker", "The builder image is missing.", remedy="Run `make builder-image`.") from error
    except docker.errors.ContainerError as error:
        raise BuildError(BuildCode.SANDBOX_ERROR, f"A container ended with exit code {error.exit_status}.") from error
    except docker.errors.APIError as error:
        raise _refused(error, creating=creating) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, HTTPError) as error:
        raise Unavailable("docker", "The Docker engine does not answer.", remedy=_REMEDY) from error


def _refused(error: docker.errors.APIError, *, creating: bool) -> OffchainVMError:
    said = str(error.explanation or error)
    if _UNKNOWN_RUNTIME.search(said):
        return _no_runtime(said)
    if _UNKNOWN_NETWORK.search(said):
        return _no_network(said)
    if creating and error.status_code == 400:
        remedy = "Set COMPILE_CPU_LIMIT, COMPILE_MEMORY_LIMIT_MB and BUILD_DISK_MB to what the engine's machine has."
        return Unavailable("docker", f"The container engine refuses containers with these limits: {said}.", remedy=remedy)
    return BuildError(BuildCode.SANDBOX_ERROR, f"The container engine refused: {said}")
