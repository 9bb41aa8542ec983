"""Makes the prebuilt module anew, in the sandbox: `python examples/prebuilt/make.py`, after `make builder-image`."""

import json
import tempfile
from pathlib import Path

from offchainvm.compiler.base import BuildRequest
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.local import BRANCH, publish_folder
from offchainvm.compiler.source import Resolver, parse_source
from offchainvm.models import CodeSource
from offchainvm.settings import load_only

NAME, TARGET = "word-count", "wasm32-unknown-unknown"


def main() -> None:
    here = Path(__file__).parent
    settings = load_only(["state_dir", "builder_image", "docker_runtime"])
    with tempfile.TemporaryDirectory() as folder:
        publish_folder(here.parent / NAME, Path(folder), owner="examples", name=NAME)
        mirror_url = f"file://{folder}"
        source = parse_source(CodeSource(repo=f"examples/{NAME}", commit=BRANCH, build_target=TARGET), mirror_url=mirror_url)
        with SandboxBuilder.from_settings(settings.model_copy(update={"source_mirror_url": mirror_url})) as builder:
            built = builder.build(BuildRequest(source, Resolver().resolve(source)))
    (here / f"{NAME}.wasm").write_bytes(built.wasm)
    (here / f"{NAME}.provenance.json").write_text(json.dumps(built.provenance, indent=1) + "\n")
    print(f"{NAME}.wasm: {built.size} bytes, sha256 {built.sha256}")


if __name__ == "__main__":
    main()
