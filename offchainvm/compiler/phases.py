"""The phases of one sandboxed build, one after the other: source, inspect, fetch, compile, verify, check."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from offchainvm.compiler import artifact, dependencies, failures, image, logtext, project, provenance, sandbox
from offchainvm.compiler.base import BuildEvent, BuildRequest, BuiltModule, OnEvent
from offchainvm.compiler.crates import Allowance, Registry
from offchainvm.compiler.lockfile import read_lockfile
from offchainvm.compiler.network import Network
from offchainvm.compiler.records import BuildLog
from offchainvm.compiler.source import ALIASES
from offchainvm.errors import BuildCode, BuildError, ImageMismatch
from offchainvm.logs import get_logger

log = get_logger()
Verify = Literal["off", "warn", "require"]
_METADATA_BYTES = 32 * 1024 * 1024
_MANIFESTS_BYTES = 4 * 1024 * 1024
_LOCKFILE_BYTES = 2 * 1024 * 1024
_SMALL_BYTES = 64 * 1024
_NETWORK_MEMORY_MB = 512
CARGO_HOME = "/cargo"
# The crates lie in a folder whose name depends on no registry, since modules embed it.
_CARGO_CONFIG = b'[source.crates-io]\nreplace-with = "fetched"\n[source.fetched]\ndirectory = "/cargo/crates"\n'
_SCRATCH = "/tmp"  # noqa: S108 - a folder in the container
# The same in every build of every worker: what is embedded in a module must not depend on where it was built.
COMPILE_ENVIRONMENT = {
    "HOME": "/build/home",
    "CARGO_HOME": CARGO_HOME,
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
    network: Network
    registry: Registry
    verify: Verify
    on_event: OnEvent

    def __post_init__(self) -> None:
        self.started_at = datetime.now(timezone.utc)
        self.started = time.monotonic()
        self.limits = self.request.limits
        self.log = BuildLog()

    def module(self) -> BuiltModule:
        toolchain = Path(__file__).with_name("scripts") / "toolchain.sh"
        self.place.put_files(sandbox.FOLDERS["conf"], [(toolchain.name, toolchain.read_bytes())])
        self.place.put_files(sandbox.FOLDERS["net"], self.network.files().items())
        tree = self._source()
        chosen = self._inspect(tree)
        lockfile = self._lockfile(tree)
        target = self._image_target()
        self._fetch(tree, lockfile)
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
        result = self._run(
            "source",
            "source.sh",
            network=not self.network.mirror_folder,
            mirror_folder=self.network.mirror_folder,
            writable=("src", "out"),
            readable=("conf",),
            memory_mb=_NETWORK_MEMORY_MB + 2 * self.limits.source_mb,
            environment={
                "URL": self.network.clone_url(self.request.source),
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
        manifests = self._bytes("manifests", limit_bytes=_MANIFESTS_BYTES).decode("utf-8", "replace")
        dependencies.check_manifests(manifests.split("\0"))
        if tree.folder:
            self._describe(tree)
        return project.read_project(self._bytes("metadata.json"), target=self.request.source.rust_target, root=tree.root)

    def _describe(self, tree: project.Tree) -> None:
        """Ask cargo about a project below the repository's root, which only the list of files has told of."""
        self._say("inspect", f"The root folder has no Cargo.toml: the project in {dependencies.shown(tree.folder)} is built.")
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

    def _lockfile(self, tree: project.Tree) -> str:
        """The repository's Cargo.lock; where it has none, that of an earlier build, or one that is made now."""
        if tree.has_lockfile:
            return self._read_lockfile(tree)
        if self.request.lockfile:
            self._say("inspect", "There is no Cargo.lock: the one that an earlier build made is used.")
            self.place.put_files(tree.root, [("Cargo.lock", self.request.lockfile.encode())])
            return self.request.lockfile
        if self.request.require_lockfile:
            raise BuildError(
                BuildCode.LOCKFILE_MISSING,
                "The repository has no Cargo.lock.",
                remedy="Commit the one that `cargo generate-lockfile` makes.",
            )
        self._say("inspect", "There is no Cargo.lock: one is made, and kept in the provenance.")
        result = self._go("lock", "lock.sh", tree, network=True, writable=("cargo", "src"), readable=("conf",))
        if result.exit_code:
            raise failures.of_lock(result)
        return self._read_lockfile(tree)

    def _fetch(self, tree: project.Tree, untrusted_lockfile: str) -> None:
        """All that the lock file names, into the crate folder: crates by the worker, git dependencies by cargo."""
        wanted = read_lockfile(untrusted_lockfile)
        self._say("fetch", f"The {len(wanted.crates)} crates that Cargo.lock names")
        allowance = Allowance(self.limits.dependencies_mb * 2**20, self.started + self.limits.timeout_seconds, self.place.cancellation)
        fetched = self.registry.fetch(wanted.crates, allowance)
        files = ((f"{crate}.crate", data) for crate, data in fetched)
        self.place.put_files(CARGO_HOME, itertools.chain([("config.toml", _CARGO_CONFIG)], files))
        result = self._go("fetch", "fetch.sh", tree, network=wanted.needs_git, writable=("cargo",), readable=("conf", "src"))
        if result.exit_code:
            raise failures.of_fetch(result, with_git=wanted.needs_git)

    def _go(
        self, name: str, script: str, tree: project.Tree, *, network: bool, writable: tuple[str, ...], readable: tuple[str, ...]
    ) -> sandbox.PhaseResult:
        """Run a phase in which cargo, but no code of the repository, works on its dependencies."""
        return self._run(
            name,
            script,
            network=network,
            mirror_folder=self.network.mirror_folder if network else "",
            writable=writable,
            readable=readable,
            memory_mb=_NETWORK_MEMORY_MB + self.limits.dependencies_mb,
            environment={
                "HOME": _SCRATCH,
                "CARGO_HOME": CARGO_HOME,
                "ROOT": tree.root,
                **({} if network else {"CARGO_NET_OFFLINE": "true"}),
            },
        )

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
            memory_mb=self.limits.compile_memory_mb,
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
            network=self.network.name if network else "",
            cut_off=self.network.cut_off if network else (),
            writable=writable,
            readable=(*readable, "net") if network or mirror_folder else readable,
            arguments=arguments,
            environment={**self.network.environment(), **environment} if network or mirror_folder else environment,
            mirror_folder=mirror_folder,
            tmp_mb=tmp_mb,
        )
        return self.place.run(phase, lambda line: self._say(name, line))

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

    def _read_lockfile(self, tree: project.Tree) -> str:
        try:
            untrusted_lockfile = self.place.read_file(f"{tree.root}/Cargo.lock", limit_bytes=_LOCKFILE_BYTES)
        except (sandbox.NotRegular, sandbox.TooBig):
            raise BuildError(BuildCode.MANIFEST_INVALID, "Cargo.lock is no regular file, or over 2 MiB.") from None
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
