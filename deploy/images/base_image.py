"""Makes the base of our images out of Debian packages, where no container registry can be reached: ``make base-image``.

It has what the worker needs (Python, git) and what the compose file's redis service needs (Valkey), so one base serves both.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from offchainvm.compiler import bootstrap, engine
from offchainvm.compiler.image import find_layers, import_archive
from offchainvm.errors import OffchainVMError

PACKAGES = ("python3", "python3-venv", "valkey-server", "valkey-tools", "git", "ca-certificates")
DEFAULT_NAME = "offchainvm-base"


def make(name: str, *, mirror: str = "", force: bool = False) -> None:
    """Import the image ``name`` where the engine has none.

    Raises:
        Unavailable: no engine, or what bootstrap needs is missing; the text says what.
    """
    with contextlib.closing(engine.connect()) as client:
        if not force and find_layers(client, name) is not None:
            return _say(f"The base image {name} is there.")
        with bootstrap.debian_archive(say=_say, mirror=mirror, packages=PACKAGES) as archive, engine.translated():
            import_archive(client, name, archive, say=_say)
    return _say(f"Made {name}.")


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME)
    parser.add_argument("--mirror", default="", help="Debian mirror; default: the one of this machine's apt sources")
    parser.add_argument("--force", action="store_true", help="make it anew")
    options = parser.parse_args()
    try:
        make(options.name, mirror=options.mirror, force=options.force)
    except OffchainVMError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
