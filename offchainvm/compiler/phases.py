"""The phases of one sandboxed build, one after the other: source, inspect, fetch, compile, verify, check."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from offchainvm.compiler import artifact, failures, git, image, logtext, project, provenance, sandbox
from offchainvm.compiler.base import BuildEvent, BuildRequest, BuiltModule, OnEvent
from offchainvm.compiler.records import BuildLog
from offchainvm.compiler.source import ALIASES, clone_url
from offchainvm.errors import BuildCode, BuildError, ImageMismatch
from offchainvm.logs import get_logger

log = get_logger()
Verify = Literal["off", "warn", "require"]
_METADATA_BYTES = 32 * 1024 * 1024
_LOCKFILE_BYTES = 4 * 1024 * 1024
_SMALL_BYTES = 64 * 1024
_NETWORK_MEMORY_MB = 512
_SCRATCH = "/tmp"  # noqa: S108 - a folder in the container
# The same in every build of every worker: what is embedded in a module must not depend on where it was built.
COMPILE_ENVIRONMENT = {
    "HOME": "/build/home",
    "CARGO_HOME": "/cargo",
    "CARGO_TARGET_DIR": "/build/target",
    "CARGO_INCREMENTAL": "0",
    "CARGO_TERM_COLOR": "never",
    "CARGO_TERM_PROGRESS_WHEN": "never",
    "LC_ALL": "C.UTF-8",
    "SOURCE_DATE_EPOCH": "1",
    "TZ": "UTC",
}


@dataclass
class BuildRun:
    """One build on its way through the phases."""

    place: sandbox.Sandbox
    request: BuildRequest
    build_id: str
    image: image.ImageRecord
    mirror_url: str
    ca_bundle: Path | None
    verify: Verify
    on_event: OnEvent

    def __post_init__(self) -> None:
        self.started_at = datetime.now(timezone.utc)
        self.started = time.monotonic()
        self.limits = self.request.limits
        self.log = BuildLog()

    def module(self) -> BuiltModule:
        self.place.put_files(sandbox.FOLDERS["conf"], self._configuration())
        tree = self._source()
        chosen = self._inspect(tree)
        lockfile = self._fetch(tree)
        target = self._image_target()
        arguments = ("--target", target, *chosen.cargo_arguments)
        path = f"{COMPILE_ENVIRONMENT['CARGO_TARGET_DIR']}/{target}/release/{chosen.file_name}"
        log_tail = self._compile("compile", arguments)
        wasm = self._check(path, log_tail)
        sha256 = hashlib.sha256(wasm).hexdigest()
        reproducible = self._compare(sha256, arguments, path)
        self._say("check", f"{chosen.file_name}: {len(wasm)} bytes, sha256 {sha256}")
        return BuiltModule(
            wasm=wasm,
            sha256=sha256,
            size=len(wasm),
            seconds=time.monotonic() - self.started,
            log_tail=log_tail,
            provenance=provenance.statement(
                request=self.request,
                project=chosen,
                module_sha256=sha256,
                module_size=len(wasm),
                git_tree=self._result("git-tree").strip(),
                lockfile=lockfile,
                lockfile_sha256=hashlib.sha256(lockfile.encode()).hexdigest(),
                lockfile_made=not tree.has_lockfile,
                image=self.image.image,
                image_layers=self.image.layers,
                toolchain=self._result("rustc").strip(),
                arguments=("cargo", "build", "--offline", "--locked", "--release", *arguments),
                environment=COMPILE_ENVIRONMENT,
                log_sha256=hashlib.sha256(self.log.text().encode()).hexdigest(),
                build_id=self.build_id,
                reproducible=reproducible,
                started_at=self.started_at,
                finished_at=datetime.now(timezone.utc),
            ),
        )

    def _source(self) -> project.Tree:
        self._say("source", f"{self.request.source.owner}/{self.request.source.name} at {self.request.commit_sha}")
        url, folder = self._clone_url()
        result = self._run(
            "source",
            "source.sh",
            network=not folder,
            mirror_folder=folder,
            writable=("src", "out"),
            readable=("conf",),
            memory_mb=_NETWORK_MEMORY_MB + 2 * self.limits.source_mb,
            environment={
                **self._network_environment(),
                "URL": url,
                "SHA": self.request.commit_sha,
                "HOME": _SCRATCH,
                "CARGO_HOME": f"{_SCRATCH}/cargo",
            },
            tmp_mb=self.limits.source_mb,
        )
        if result.exit_code in {0, 33, 34}:
            # What git's list tells comes first: a tree that is too large, a manifest that is a link.
            tree = project.read_tree(self._bytes("tree"), self.limits)
        if result.exit_code:
            error = failures.of_source(result, self.request)
            if result.exit_code == 34 and tree.submodules:
                error.remedy = "Submodules are not fetched: what lies in one must become part of the repository, or a git dependency."
            raise error
        self._say("source", f"Built with {self._result('rustc').partition(chr(10))[0]}")
        if tree.submodules:
            self._say("inspect", "The repository has submodules: they are not fetched.")
        return tree

    def _inspect(self, tree: project.Tree) -> project.Project:
        if tree.folder:
            self._describe(tree)
        if not tree.has_lockfile and self.request.lockfile:
            project.check_sources(project.lock_sources(self.request.lockfile))
            self._say("inspect", "There is no Cargo.lock: the one that an earlier build made is used.")
        elif not tree.has_lockfile:
            if self.request.require_lockfile:
                raise BuildError(
                    BuildCode.LOCKFILE_MISSING,
                    "The repository has no Cargo.lock.",
                    remedy="Commit the one that `cargo generate-lockfile` makes.",
                )
            self._say("inspect", "There is no Cargo.lock: one is made, and kept in the provenance.")
        else:
            project.check_sources(project.lock_sources(self._lockfile(tree)))
        return project.read_project(self._bytes("metadata.json"), target=self.request.source.rust_target, root=tree.root)

    def _describe(self, tree: project.Tree) -> None:
        """Ask cargo about a project below the repository's root, which only the list of files has told of."""
        self._say("inspect", f"The root folder has no Cargo.toml: the project in {project.shown(tree.folder)} is built.")
        result = self._run(
            "inspect",
            "inspect.sh",
            writable=("out",),
            readable=("conf", "src"),
            memory_mb=_NETWORK_MEMORY_MB,
            environment={"LC_ALL": "C.UTF-8", "HOME": _SCRATCH, "CARGO_HOME": f"{_SCRATCH}/cargo", "ROOT": tree.root},
        )
        if result.exit_code:
            raise failures.of_source(result, self.request)

    def _fetch(self, tree: project.Tree) -> str:
        self._say("fetch", "The crates that Cargo.lock names")
        mirrored = self.mirror_url.startswith("file://")
        result = self._run(
            "fetch",
            "fetch.sh",
            network=True,
            mirror_folder=urlsplit(self.mirror_url).path if mirrored else "",
            writable=("cargo",) if tree.has_lockfile else ("cargo", "src"),
            readable=("conf", "src") if tree.has_lockfile else ("conf",),
            memory_mb=_NETWORK_MEMORY_MB + self.limits.dependencies_mb,
            environment={
                **self._network_environment(),
                "HOME": _SCRATCH,
                "CARGO_HOME": "/cargo",
                "TARGET": self._image_target(),
                "ROOT": tree.root,
            },
        )
        if result.exit_code:
            raise failures.of_fetch(result)
        lockfile = self._lockfile(tree)
        project.check_sources(project.lock_sources(lockfile))
        return lockfile

    def _compare(self, sha256: str, arguments: tuple[str, ...], path: str) -> str:
        """Build again, in a target folder as empty as the first was: ``yes``, ``no``, or ``unchecked``.

        Raises:
            BuildError: ``not_reproducible`` where equal bytes are required; ``timeout``, ``sandbox_error``.
        """
        if self.verify == "off":
            return "unchecked"
        verdict, log_tail = "no", ""
        try:
            log_tail = self._compile("verify", arguments)
            again = hashlib.sha256(self._check(path, log_tail)).hexdigest()
            if again == sha256:
                self._say("verify", f"The second build gave the same bytes: sha256 {again}")
                return "yes"
            problem = f"Two builds of the same source gave different bytes: sha256 {sha256} and {again}."
        except BuildError as error:
            out_of_time = error.code == BuildCode.TIMEOUT.value
            if error.code == BuildCode.SANDBOX_ERROR.value or (out_of_time and self.verify == "require"):
                raise
            verdict = "unchecked" if out_of_time else "no"
            problem, log_tail = f"The second of two builds failed ({error.code}): {error.sentence}", error.log_tail
        if self.verify == "require":
            remedy = "Look for the time, random numbers or the order of a hash map in build scripts and macros."
            raise BuildError(BuildCode.NOT_REPRODUCIBLE, problem, log_tail=log_tail, remedy=remedy)
        self._say("verify", problem)
        log.warning("A build cannot be repeated.", action="verify_build", reproducible=verdict, build=self.build_id, problem=problem)
        return verdict

    def _compile(self, name: str, arguments: tuple[str, ...]) -> str:
        self._say(name, f"cargo build --release {' '.join(arguments)}")
        result = self._run(
            name,
            "compile.sh",
            writable=("build",),
            readable=("conf", "src", "cargo"),
            # Files in memory count too: so that a full disk and no memory stay two different errors.
            memory_mb=self.limits.memory_mb + self.limits.disk_mb,
            arguments=arguments,
            environment=COMPILE_ENVIRONMENT,
            idle_seconds=self.limits.idle_seconds,
        )
        if result.exit_code or result.stopped or result.out_of_memory:
            raise failures.of_compile(result, self.limits)
        return result.log_tail

    def _check(self, path: str, log_tail: str) -> bytes:
        try:
            untrusted_wasm = self.place.read_file(path, limit_bytes=self.limits.module_bytes)
        except sandbox.NotRegular:
            raise BuildError(BuildCode.ARTIFACT_INVALID, "The module that the build left is no regular file.", log_tail=log_tail) from None
        except sandbox.TooBig as error:
            raise artifact.too_large(error.args[0], error.args[1]) from None
        if untrusted_wasm is None:
            raise BuildError(BuildCode.NO_ARTIFACT, f"The build ended well but left no {Path(path).name}.", log_tail=log_tail)
        artifact.check_artifact(untrusted_wasm, limit_bytes=self.limits.module_bytes)
        return untrusted_wasm

    def _run(
        self,
        name: str,
        script: str,
        *,
        memory_mb: int,
        environment: dict[str, str],
        network: bool = False,
        writable: tuple[str, ...] = (),
        readable: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
        mirror_folder: str = "",
        idle_seconds: float = float("inf"),
        tmp_mb: int = 256,
    ) -> sandbox.PhaseResult:
        remaining = self.limits.timeout_seconds - (time.monotonic() - self.started)
        phase = sandbox.Phase(
            name=name,
            script=script,
            memory_mb=memory_mb,
            cpus=self.limits.cpus,
            processes=self.limits.processes,
            timeout_seconds=max(0.1, remaining),
            idle_seconds=idle_seconds,
            network=network,
            writable=writable,
            readable=readable,
            arguments=arguments,
            environment=environment,
            mirror_folder=mirror_folder,
            tmp_mb=tmp_mb,
        )
        return self.place.run(phase, lambda line: self._say(name, line))

    def _clone_url(self) -> tuple[str, str]:
        """Where the clone phase finds the repository, and the host folder that it needs for that."""
        source = self.request.source
        if not self.mirror_url:
            return source.clone_url, ""
        if self.mirror_url.startswith("file://"):
            return clone_url(source.owner, source.name, mirror_url="file:///mirror"), urlsplit(self.mirror_url).path
        return clone_url(source.owner, source.name, mirror_url=self.mirror_url), ""

    def _configuration(self) -> dict[str, bytes]:
        ca_file = git.host_ca_file(self.ca_bundle)
        base = "file:///mirror" if self.mirror_url.startswith("file://") else self.mirror_url or git.GITHUB
        toolchain = Path(__file__).with_name("scripts") / "toolchain.sh"
        files = {"gitconfig": git.git_config(base).encode(), "toolchain.sh": toolchain.read_bytes()}
        if self.request.lockfile:
            files["Cargo.lock"] = self.request.lockfile.encode()
        return {**files, "ca.crt": ca_file.read_bytes()} if ca_file else files

    def _network_environment(self) -> dict[str, str]:
        """What the phases with a network get, and the build does not: certificates, proxy, rules for git."""
        trust = (
            dict.fromkeys(("CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO", "SSL_CERT_FILE"), "/conf/ca.crt")
            if git.host_ca_file(self.ca_bundle)
            else {}
        )
        return {
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/conf/gitconfig",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
            "CARGO_HTTP_TIMEOUT": "30",
            "CARGO_TERM_COLOR": "never",
            "CARGO_TERM_PROGRESS_WHEN": "never",
            **trust,
            **git.proxy_environment(),
        }

    def _image_target(self) -> str:
        """The target by the name that the image's own toolchain knows."""
        known = self._result("targets").split()
        target = self.request.source.rust_target
        # Toolchains before 1.78 know WASI preview 1 by its old name only.
        names = [name for name in (target, *(old for old, new in ALIASES.items() if new == target)) if name in known]
        if not names:
            sentence = f"The builder image {self.image.image} has no standard library for {target}; it has {', '.join(known) or 'none'}."
            raise ImageMismatch(sentence, remedy="Run `make builder-image`.")
        return names[0]

    def _lockfile(self, tree: project.Tree) -> str:
        try:
            untrusted_lockfile = self.place.read_file(f"{tree.root}/Cargo.lock", limit_bytes=_LOCKFILE_BYTES)
        except (sandbox.NotRegular, sandbox.TooBig):
            raise BuildError(BuildCode.MANIFEST_INVALID, "Cargo.lock is no regular file, or over 4 MiB.") from None
        return (untrusted_lockfile or b"").decode("utf-8", "replace")

    def _result(self, name: str) -> str:
        return self._bytes(name, limit_bytes=_SMALL_BYTES).decode("utf-8", "replace")

    def _bytes(self, name: str, *, limit_bytes: int = _METADATA_BYTES) -> bytes:
        try:
            return self.place.read_file(f"{sandbox.FOLDERS['out']}/{name}", limit_bytes=limit_bytes) or b""
        except (sandbox.NotRegular, sandbox.TooBig):
            raise BuildError(BuildCode.REPO_TOO_LARGE, "The repository's list of files or packages is too long.") from None

    def _say(self, phase: str, untrusted_text: str) -> None:
        """Names of folders and targets are strangers' too: every line is made safe here."""
        text = logtext.clean_line(untrusted_text.encode("utf-8", "replace"))
        self.log.add(text)
        self.on_event(BuildEvent(phase, text))
