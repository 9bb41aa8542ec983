"""A root file system with Rust for WASM out of Debian packages, where no container registry can be reached.

Needs root (mmdebstrap makes device nodes and changes root) and a Debian mirror, which comes from the machine's own
apt sources. Two runs against the same mirror state give the same archive, so the same layer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from offchainvm.errors import Unavailable

SUITE = "trixie"
_RUST = ("rustc", "cargo", "libstd-rust-dev", "libstd-rust-dev-wasm32", "git", "ca-certificates")
# gcc and libc6-dev: without them no build script links. lld: rust-lld is not packaged.
_LINKERS = ("gcc", "libc6-dev", "lld")
# For crates with C inside. No llvm-ar, which is large: GNU ar does.
_C = ("clang", "wasi-libc", "libclang-rt-dev-wasm32")
PACKAGES = (*_RUST, *_LINKERS, *_C)
_DEBIAN_SUITE = re.compile(r"\b(?:bullseye|bookworm|trixie|forky|sid|testing|stable|oldstable|unstable)\b(?![-/]\S*secur)")
# Not debootstrap, which takes nearly twice as long: it unpacks by shell scripts, this one by apt and dpkg.
_TOOLS = ("mmdebstrap", "debian-archive-keyring")
_FIXED_TIME = 1
_WORK_FOLDER = Path("/var/tmp")  # noqa: S108 - /tmp is often small
_EMPTY_FOLDERS = {"dev", "proc", "sys", "run", "tmp", "var/tmp", "var/log", "var/cache", "var/lib/apt/lists"}
_LEFT_OUT = {"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"}
_LEFT_OUT |= {"etc/machine-id", "etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id"}
Say = Callable[[str], None]


def recipe() -> str:
    """What decides on the image's contents, besides the state of the mirror."""
    return "\n".join([SUITE, *sorted(PACKAGES), *sorted(_LEFT_OUT | _EMPTY_FOLDERS)])


@contextmanager
def debian_archive(*, say: Say, mirror: str = "", packages: Sequence[str] = PACKAGES) -> Iterator[Path]:
    """A tar file of a root file system with ``packages`` in it; it is gone afterwards.

    Raises:
        Unavailable: what is missing on this machine (service ``docker``: no builder image, no builds).
    """
    mirror = mirror or find_mirror()
    if os.geteuid() != 0:
        raise _missing("Making it from Debian packages needs root.", "Run `make builder-image` as root once.")
    _have_mmdebstrap(say)
    folder = Path(tempfile.mkdtemp(prefix="offchainvm-image-", dir=_WORK_FOLDER))
    try:
        _mmdebstrap(folder / "root", mirror, packages, say)
        say("Packing the root file system …")
        pack(folder / "root", folder / "root.tar")
        yield folder / "root.tar"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_mirror(apt_folder: Path = Path("/etc/apt")) -> str:
    """The Debian mirror of this machine's apt sources.

    Raises:
        Unavailable: there is none, e.g. on another distribution.
    """
    parts = apt_folder / "sources.list.d"
    texts = [
        path.read_text(errors="replace")
        for path in (apt_folder / "sources.list", *sorted(parts.glob("*.sources")), *sorted(parts.glob("*.list")))
        if path.is_file()
    ]
    for text in texts:
        for url in _mirrors_in(text):
            return url
    raise _missing("This machine's apt sources name no Debian mirror.", "Name one: `python -m offchainvm.compiler.image --mirror URL`.")


def _mirrors_in(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)\s+.*\bmain\b", line)
        if match and _DEBIAN_SUITE.search(match[2]):
            yield match[1]
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"(?mi)^(Types|URIs|Suites|Components):[ \t]*(.+)$", stanza))
        if "main" in fields.get("Components", "").split() and _DEBIAN_SUITE.search(fields.get("Suites", "")):
            yield fields["URIs"].split()[0]


def pack(root: Path, archive: Path) -> None:
    """Write ``root`` as a tar that depends on its files only: sorted, fixed times, no logs, caches or identities."""
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in _kept_paths(root):
            entry = tar.gettarinfo(path, arcname=str(path.relative_to(root)))
            entry.mtime, entry.uname, entry.gname = _FIXED_TIME, "", ""
            if entry.isreg():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)


def _kept_paths(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root).as_posix()
        folders[:] = sorted(name for name in folders if _inside(here, name) not in _LEFT_OUT)
        if here != ".":
            yield Path(folder)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        if here in _EMPTY_FOLDERS:
            folders.clear()
            continue
        yield from (Path(folder) / name for name in sorted([*files, *links]) if _inside(here, name) not in _LEFT_OUT)


def _inside(here: str, name: str) -> str:
    return name if here == "." else f"{here}/{name}"


def _have_mmdebstrap(say: Say) -> None:
    if shutil.which("mmdebstrap"):
        return
    if not shutil.which("apt-get"):
        raise _missing("mmdebstrap is not installed, and there is no apt-get to fetch it.", "Install mmdebstrap.")
    say(f"Installing {', '.join(_TOOLS)} with apt-get …")
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *_TOOLS]
    if not _quiet(install) and not (_quiet(["apt-get", "update", "-q"]) and _quiet(install)):
        raise _missing("mmdebstrap is not installed, and apt-get could not fetch it.", "Install mmdebstrap.")


def _quiet(command: list[str]) -> bool:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, env=environ).returncode == 0


def _mmdebstrap(root: Path, mirror: str, packages: Sequence[str], say: Say) -> None:
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(root), mirror]
    # What it mounts inside vanishes with a mount namespace of its own, even when it is killed.
    if _quiet(["unshare", "--mount", "true"]):
        command = ["unshare", "--mount", *command]
    say(f"Making a Debian {SUITE} root file system with {', '.join(packages[:3])} … (about a minute)")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            reason = _show_progress(process, say)
            if process.wait() != 0:
                raise _missing(f"mmdebstrap failed: {reason}.", "Check that the Debian mirror can be reached.")
        finally:
            process.kill()
            process.wait()
            for mounted in (path for path in (root / "proc", root / "sys") if path.is_mount()):
                _quiet(["umount", "--lazy", str(mounted)])


def _show_progress(process: subprocess.Popen[str], say: Say) -> str:
    """What it said first of what went wrong, which is the cause: what follows only says that it failed; else its last line."""
    error, line, shown_at = "", "", time.monotonic()
    for raw in process.stdout or ():
        line = raw.strip().removeprefix("I: ")
        if line.startswith("E: "):
            error = error or line.removeprefix("E: ")
        if time.monotonic() - shown_at >= 3:
            say(f"  {line}")
            shown_at = time.monotonic()
    return error or line


def _missing(sentence: str, remedy: str) -> Unavailable:
    return Unavailable("docker", f"The builder image cannot be made here: {sentence}", remedy=remedy)
