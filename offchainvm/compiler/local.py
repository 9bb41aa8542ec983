"""A folder as a repository: for the demo, the prebuilt example and the tests, which build what lies on this disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BRANCH = "main"
_LEFT_OUT = shutil.ignore_patterns("target", ".git")
_DATE = "2024-01-01T00:00:00Z"


def publish_folder(folder: Path, mirror: Path, *, owner: str, name: str) -> str:
    """Make the bare repository ``mirror/owner/name.git`` with one commit of ``folder``, on branch main; its full SHA.

    The SHA depends on the files only. With SOURCE_MIRROR_URL=file://MIRROR a worker builds it as ``owner/name``.
    """
    bare = mirror / owner / f"{name}.git"
    shutil.rmtree(bare, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="offchainvm-publish-") as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(folder, tree, ignore=_LEFT_OUT, symlinks=True)
        _git(["init", "--quiet", "--bare", "--template=", f"--initial-branch={BRANCH}", str(bare)], scratch)
        _git(["--git-dir", str(bare), "--work-tree", str(tree), "add", "--all", "--force"], scratch)
        sha = _commit(bare, scratch)
    (bare / "index").unlink(missing_ok=True)
    _open_to_all(mirror, bare)
    return sha


def _commit(bare: Path, scratch: str) -> str:
    git = ["--git-dir", str(bare)]
    tree = _git([*git, "write-tree"], scratch)
    sha = _git([*git, "commit-tree", "-m", "Import", tree], scratch)
    _git([*git, "update-ref", f"refs/heads/{BRANCH}", sha], scratch)
    return sha


def _open_to_all(mirror: Path, bare: Path) -> None:
    # The clone phase reads it as a user without rights, and a temporary folder is private to its maker.
    for path in (mirror, bare.parent, bare, *bare.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _git(arguments: list[str], home: str) -> str:
    person = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _PERSON.items()}
    environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", **person}
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, env=environ, cwd=home)
    return done.stdout.strip()


_PERSON = {"NAME": "offchainvm", "EMAIL": "offchainvm@localhost", "DATE": _DATE}
