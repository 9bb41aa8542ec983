"""A real engine, the real builder image, repositories made in a temporary folder."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import builder as builder_support
import pytest
import requests
from build_worker import BuildWorker, Order
from builds import EXECUTE, LIBRARY, LOCKFILE, SMALL
from left_behind import left_behind
from mirror import Mirror

from offchainvm.authorities import TlsAdapter, tls_context
from offchainvm.compiler import reaper
from offchainvm.compiler.base import BuildEvent, BuildRequest, BuiltModule, ignore_event
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.crates import INDEX
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.local import publish_folder
from offchainvm.compiler.source import parse_source
from offchainvm.models import CodeSource
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

OWNER = "integration"
Files = dict[str, str | bytes | Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may have to make the builder image, which takes minutes on a slow machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    with builder_support.client() as found:
        yield found


@pytest.fixture(scope="session")
def state_dir(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the layers of the builder image are recorded; the image is made where it is missing."""
    folder = tmp_path_factory.mktemp("state")
    builder_support.make_image(client, folder)
    return folder


@pytest.fixture(scope="session")
def real_registry() -> None:
    """The Rust package registry itself; a test is skipped where it cannot be reached, but for CI."""
    with requests.Session() as session:
        session.mount("https://", TlsAdapter(tls_context(None)))
        try:
            session.get(f"{INDEX}config.json", timeout=10).raise_for_status()
        except requests.RequestException:
            if os.environ.get("CI"):
                raise
            pytest.skip("the Rust package registry cannot be reached from this machine")


@pytest.fixture
def owner(client: DockerClient) -> Iterator[str]:
    """A name of this test alone; whatever it leaves behind fails it."""
    name = f"{OWNER}-{uuid.uuid4().hex[:12]}"
    yield name
    assert left_behind(client, name) == []


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


@pytest.fixture
def builder(state_dir: Path, owner: str, mirror: Path) -> Iterator[SandboxBuilder]:
    image_name = load_only(["builder_image"]).builder_image
    with SandboxBuilder(image=image_name, state_dir=state_dir, owner=owner, mirror_url=f"file://{mirror}") as made:
        yield made


@pytest.fixture
def start_worker(client: DockerClient, state_dir: Path, owner: str, mirror: Path) -> Callable[..., BuildWorker]:
    """Build a commit of ``someone/guest`` in another process, with deadlines of its own."""

    def start(commit_sha: str, **deadlines: int) -> BuildWorker:
        image_name = load_only(["builder_image"]).builder_image
        return BuildWorker(client, Order(image_name, str(state_dir), owner, f"file://{mirror}", commit_sha, **deadlines))

    return start


@pytest.fixture
def publish(tmp_path: Path, mirror: Path) -> Callable[..., str]:
    """Make ``someone/NAME`` of the given files (a Path = a symbolic link to it), over those of a small guest; its commit."""

    def publish_files(files: Files | None = None, *, without: tuple[str, ...] = (), name: str = "guest") -> str:
        everything: Files = {"Cargo.toml": LIBRARY, "Cargo.lock": LOCKFILE, "src/lib.rs": EXECUTE, **(files or {})}
        folder = tmp_path / "files" / name
        for path, content in everything.items():
            if path in without:
                continue
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                file.symlink_to(content)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
                file.chmod(0o755 if file.read_bytes().startswith(b"#!") else 0o644)
        return publish_folder(folder, mirror, owner="someone", name=name)

    return publish_files


@pytest.fixture
def build(builder: SandboxBuilder, mirror: Path) -> Callable[..., BuiltModule]:
    """Build a commit of ``someone/guest``."""

    def run(
        commit_sha: str,
        *,
        repo: str = "someone/guest",
        target: str = "wasm32-unknown-unknown",
        limits: BuildLimits = SMALL,
        require_lockfile: bool = False,
        on_event: Callable[[BuildEvent], None] = ignore_event,
    ) -> BuiltModule:
        source = parse_source(CodeSource(repo=repo, commit=commit_sha, build_target=target), mirror_url=f"file://{mirror}")
        return builder.build(BuildRequest(source, commit_sha, limits, require_lockfile), on_event=on_event)

    return run


@pytest.fixture(scope="module")
def network(client: DockerClient) -> Iterator[tuple[str, str]]:
    """An internal network of the engine: its name, and the address of this host in it."""
    made = client.networks.create(f"offchainvm-test-{uuid.uuid4().hex[:8]}", internal=True)
    made.reload()
    yield str(made.name), made.attrs["IPAM"]["Config"][0]["Gateway"]
    deadline = time.monotonic() + 20
    while not reaper.gone(made.remove):  # a container that is being removed holds it yet
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def site(network: tuple[str, str], mirror: Path) -> Iterator[Mirror]:
    with Mirror(network[1], mirror) as server:
        yield server


@pytest.fixture
def make(state_dir: Path, owner: str, network: tuple[str, str], site: Mirror, tmp_path: Path) -> Callable[..., BuiltModule]:
    """Build ``someone/guest`` through the mirror, each time with a builder of its own; the folder of state is this test's."""
    (tmp_path / "state2").mkdir()
    (tmp_path / "state2" / "builder-image.json").write_bytes((state_dir / "builder-image.json").read_bytes())

    def run(commit_sha: str, *, limits: BuildLimits = SMALL, lockfile: str = "", **given: object) -> BuiltModule:
        options = {"mirror_url": site.git_url, "crates_mirror_url": site.index_url, "network": network[0], **given}
        on_event = options.pop("on_event", lambda event: None)
        image = load_only(["builder_image"]).builder_image
        source = parse_source(CodeSource(repo="someone/guest", commit=commit_sha, build_target="wasm32-unknown-unknown"))
        with SandboxBuilder(image=image, state_dir=tmp_path / "state2", owner=owner, **options) as builder:  # type: ignore[arg-type]
            return builder.build(BuildRequest(source, commit_sha, limits, lockfile=lockfile), on_event=on_event)  # type: ignore[arg-type]

    return run
