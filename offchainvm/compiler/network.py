"""What the networked phases of a build get and the others do not: where to go, whom to trust, which proxy to take."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from offchainvm.compiler import git
from offchainvm.compiler.folders import FOLDERS
from offchainvm.compiler.source import Source, clone_url

_MIRROR_IN_SANDBOX = "file:///mirror"


@dataclass(frozen=True)
class Network:
    """A site's way to repositories and crates. Both mirrors may hold a login, so that nothing of it reaches a build."""

    mirror_url: str = ""
    """Base that replaces GitHub, for the repository and its git dependencies; empty = GitHub itself."""
    crates_mirror_url: str = ""
    """Sparse index that replaces that of the Rust package registry; empty = the registry itself."""
    ca_pem: bytes = b""
    """Certificate authorities to trust, in PEM format; empty = those of the builder image."""
    name: str = "bridge"
    """The engine's network that the phases join."""

    @property
    def mirror_folder(self) -> str:
        """The folder of this host that stands for GitHub; empty where an address does."""
        return urlsplit(self.mirror_url).path if self.mirror_url.startswith("file://") else ""

    @property
    def cut_off(self) -> tuple[str, ...]:
        """Hosts that must not be asked: cargo would look at GitHub's API for each git dependency, and wait where it cannot be reached."""
        return ("api.github.com",) if self.mirror_url else ()

    def clone_url(self, source: Source) -> str:
        """Where a phase finds the repository."""
        return clone_url(source.owner, source.name, mirror_url=self._base) if self.mirror_url else source.clone_url

    def files(self) -> dict[str, bytes]:
        """The files in ``/net``."""
        files = {"gitconfig": git.git_config(self._base).encode(), "cargo.toml": self._cargo_config().encode()}
        return {**files, "ca.crt": self.ca_pem} if self.ca_pem else files

    def environment(self) -> dict[str, str]:
        """The variables of the phases with a network."""
        names = ("CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO", "SSL_CERT_FILE") if self.ca_pem else ()
        return {
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": f"{FOLDERS['net']}/gitconfig",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
            "CARGO_HTTP_TIMEOUT": "30",
            "CARGO_TERM_COLOR": "never",
            "CARGO_TERM_PROGRESS_WHEN": "never",
            **dict.fromkeys(names, f"{FOLDERS['net']}/ca.crt"),
            **self._proxy(),
        }

    def _proxy(self) -> dict[str, str]:
        """This host's proxy; it would find the way to hosts that are cut off, so they are not asked for through it."""
        given = git.proxy_environment()
        direct = ",".join(filter(None, [given.get("no_proxy") or given.get("NO_PROXY"), *self.cut_off]))
        return {**given, **dict.fromkeys(("no_proxy", "NO_PROXY"), direct)} if given and direct else given

    @property
    def _base(self) -> str:
        return _MIRROR_IN_SANDBOX if self.mirror_folder else self.mirror_url or git.GITHUB

    def _cargo_config(self) -> str:
        """For the resolver alone, which reads the index: crates themselves are fetched by the worker."""
        if not self.crates_mirror_url:
            return ""
        index = f"sparse+{self.crates_mirror_url.removeprefix('sparse+').rstrip('/')}/"
        return f'[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\nregistry = "{index}"\n'
