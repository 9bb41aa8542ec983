"""A compile worker in a process of its own, to be killed or frozen in the middle of a build; run as a program it is that process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from offchainvm.compiler import reaper, sandbox
from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.source import parse_source
from offchainvm.errors import OffchainVMError
from offchainvm.models import CodeSource

if TYPE_CHECKING:
    from docker.client import DockerClient

FAR = 3600


@dataclass(frozen=True)
class Order:
    """One build of ``someone/guest``, with deadlines apart from each other, in seconds: two of its phase ``compile``, one of it all."""

    image: str
    state_dir: str
    owner: str
    mirror_url: str
    commit_sha: str
    compile_seconds: int = FAR
    inner_seconds: int = FAR
    lifetime_seconds: int = FAR


class BuildWorker:
    """The process, from start to end."""

    def __init__(self, client: DockerClient, order: Order) -> None:
        self._client, self._filters = client, {"label": f"{reaper.LABEL_OWNER}={order.owner}"}
        command = [sys.executable, __file__, json.dumps(asdict(order))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self) -> BuildWorker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
        self._process.communicate()

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    @property
    def is_frozen(self) -> bool:
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def wait_until_it_compiles(self) -> None:
        while "compile" not in self.running():
            assert self._process.poll() is None
            time.sleep(0.1)

    def running(self) -> list[str]:
        """The containers of its build that run, by phase."""
        return [str(found.name).rpartition("-")[2] for found in self._client.containers.list(filters=self._filters, ignore_removed=True)]

    def outcome(self) -> str:
        """How its build ended: the error's text, or the module's hash."""
        return self._process.communicate(timeout=60)[0].splitlines()[-1]


def main(order: Order) -> None:
    """Build what is ordered, and print how it ended."""
    labels = reaper.labels
    reaper.labels = lambda owner, build_id, **_: labels(owner, build_id, lifetime_seconds=order.lifetime_seconds)
    run = sandbox.Sandbox.run
    sandbox.Sandbox.run = lambda place, phase, on_line: run(  # type: ignore[method-assign]
        place, replace(phase, timeout_seconds=order.compile_seconds if phase.name == "compile" else FAR), on_line
    )
    inner_seconds = property(lambda phase: order.inner_seconds if phase.name == "compile" else FAR)
    sandbox.Phase.inner_seconds = inner_seconds  # type: ignore[assignment,method-assign]
    sandbox.Phase.processor_seconds = FAR  # type: ignore[assignment,method-assign]
    source = parse_source(CodeSource(repo="someone/guest", commit=order.commit_sha, build_target="wasm32-unknown-unknown"))
    limits = BuildLimits(timeout_seconds=FAR)
    builder = SandboxBuilder(image=order.image, state_dir=Path(order.state_dir), owner=order.owner, mirror_url=order.mirror_url)
    try:
        print(builder.build(BuildRequest(source, order.commit_sha, limits)).sha256)
    except OffchainVMError as error:
        print(error)


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
