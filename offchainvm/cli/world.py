"""What demo and dev share: the example program as a repository on this disk, and how it can become a module here."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pydantic import SecretStr

from offchainvm.cli.stack import Stack
from offchainvm.compiler import engine, image
from offchainvm.compiler.local import publish_folder
from offchainvm.compiler.source import source_key
from offchainvm.coordinator import Coordinator
from offchainvm.errors import OffchainVMError
from offchainvm.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OWNER, NAME, TARGET = "examples", "word-count", "wasm32-unknown-unknown"
REPOSITORY = f"https://github.com/{OWNER}/{NAME}"
# The default, rust:1.75, is too old for today's crates (see .env.example).
BASE_IMAGE = "rust:1.90"
BUILDER_IMAGE: str = Settings.model_fields["builder_image"].default


@dataclass(frozen=True)
class Example:
    """The example program; its repository is below ``mirror``."""

    mirror: Path
    commit_sha: str

    @property
    def settings(self) -> dict[str, str]:
        """Let workers find the repository on this disk."""
        return {"SOURCE_MIRROR_URL": f"file://{self.mirror}", "BUILDER_IMAGE": BUILDER_IMAGE}


def publish_example(mirror: Path) -> Example:
    """Make a repository of the example program.

    Raises:
        OffchainVMError: the examples are not beside the package.
    """
    if not (EXAMPLES / NAME).is_dir():
        raise OffchainVMError("The example programs are not here: they come with the repository.", remedy="Run this from a checkout.")
    mirror.mkdir(parents=True, exist_ok=True)
    return Example(mirror, publish_folder(EXAMPLES / NAME, mirror, owner=OWNER, name=NAME))


def why_not_build(state_dir: Path, say: Callable[[str], None]) -> str:
    """Empty when builds are possible here, the builder image made on the way where it was missing; else why they are not."""
    try:
        with contextlib.closing(engine.connect()) as client:
            image.make_image(client, BUILDER_IMAGE, base_image=BASE_IMAGE, state_dir=state_dir, say=say)
    except OffchainVMError as error:
        return error.sentence
    return ""


def upload_prebuilt(stack: Stack, example: Example) -> None:
    """Put the prebuilt module of the example into the Coordinator's cache, as another worker's build would be."""
    key = source_key(REPOSITORY, example.commit_sha, TARGET)
    coordinator = Coordinator(stack.coordinator_url, SecretStr(stack.api_token))
    with contextlib.closing(coordinator):
        coordinator.upload(key, REPOSITORY, example.commit_sha, (EXAMPLES / "prebuilt" / f"{NAME}.wasm").read_bytes())


def expected_answer(text: str) -> str:
    """What the example program says of ``text``, computed here."""
    words = text.split()
    longest = max(words, key=len) if words else ""
    return f'{{"lines":{len(text.splitlines())},"words":{len(words)},"bytes":{len(text.encode())},"longest":"{longest}"}}'


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that what was started is stopped."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
