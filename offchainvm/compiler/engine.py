"""The container engine's client, with its errors turned into ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
import requests

from offchainvm.errors import BuildCode, BuildError, Unavailable

if TYPE_CHECKING:
    from docker.client import DockerClient

API_TIMEOUT_SECONDS = 120
_USUAL_SOCKET = "/var/run/docker.sock"
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


def _unix_socket() -> Path | None:
    host = os.environ.get("DOCKER_HOST") or f"unix://{_USUAL_SOCKET}"
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else None


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the client as errors of this package: an engine that is away, an image that is missing, anything else."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise Unavailable("docker", "The builder image is missing.", remedy="Run `make builder-image`.") from error
    except docker.errors.APIError as error:
        raise BuildError(BuildCode.SANDBOX_ERROR, f"The container engine refused: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise Unavailable("docker", "The Docker engine does not answer.", remedy=_REMEDY) from error
