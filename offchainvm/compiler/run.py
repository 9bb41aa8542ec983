"""One build on its way through the phases: source, inspect, lock, fetch, compile, verify, check."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal

from offchainvm.compiler import dependencies, failures, image, logtext, project, provenance, sandbox
from offchainvm.compiler.base import BuildEvent, BuildRequest, BuiltModule, OnEvent
from offchainvm.compiler.crates import Allowance, Registry
from offchainvm.compiler.folders import FOLDERS
from offchainvm.compiler.lockfile import read_lockfile
from offchainvm.compiler.network import Network
from offchainvm.compiler.phases import CARGO_HOME, COMPILE_ENVIRONMENT, Phases
from offchainvm.compiler.records import BuildLog
from offchainvm.compiler.results import Answers, Results
from offchainvm.compiler.source import ALIASES
from offchainvm.errors import BuildCode, BuildError, ImageMismatch
from offchainvm.logs import get_logger

log = get_logger()
Verify = Literal["off", "warn", "require"]
# The crates lie in a folder whose name depends on no registry, since modules embed it.
_CARGO_CONFIG = f'[source.crates-io]\nreplace-with = "fetched"\n[source.fetched]\ndirectory = "{CARGO_HOME}/crates"\n'.encode()
# Both decide the bytes of a module.
_BUILD_SCRIPTS = ("toolchain.sh", "compile.sh")


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
        self.phases = Phases(self.request, self.network)
        self.results = Results(self.place)
        self.answers = Answers({})

    def module(self) -> BuiltModule:
        self.place.put_files(FOLDERS["conf"], [("toolchain.sh", sandbox.read_script("toolchain.sh").encode())])
        self.place.put_files(FOLDERS["net"], self.network.files().items())
        tree = self._source()
        chosen = self._inspect(tree)
        lockfile = self._lockfile(tree)
        target = self._image_target()
        self._fetch(tree, lockfile)
        arguments = ("--target", target, *chosen.cargo_arguments)
        path = f"{COMPILE_ENVIRONMENT['CARGO_TARGET_DIR']}/{target}/release/{chosen.file_name}"
        log_tail = self._compile("compile", arguments)
        wasm = self.results.module(path, self.limits, log_tail)
        sha256 = hashlib.sha256(wasm).hexdigest()
        reproducible = self._compare(sha256, arguments, path)
        self._say("check", f"{chosen.file_name}: {len(wasm)} bytes, sha256 {sha256}")
        facts = provenance.Facts(
            request=self.request,
            project=chosen,
            module_sha256=sha256,
            module_size=len(wasm),
            git_tree=self.answers.text("git-tree").strip(),
            lockfile=lockfile,
            lockfile_made=not tree.has_lockfile,
            image=self.image,
            toolchain=self.answers.text("rustc").strip(),
            arguments=("cargo", "build", "--offline", "--locked", "--release", *arguments),
            environment=COMPILE_ENVIRONMENT,
            scripts={name: sandbox.read_script(name) for name in _BUILD_SCRIPTS},
            log=self.log.text(),
            build_id=self.build_id,
            reproducible=reproducible,
            started_at=self.started_at,
            finished_at=datetime.now(timezone.utc),
        )
        return BuiltModule(
            wasm=wasm,
            sha256=sha256,
            size=len(wasm),
            seconds=time.monotonic() - self.started,
            log_tail=log_tail,
            provenance=provenance.statement(facts),
        )

    def _source(self) -> project.Tree:
        self._say("source", f"{self.request.source.owner}/{self.request.source.name} at {self.request.commit_sha}")
        result = self._run(self.phases.source())
        if result.exit_code not in {0, 33, 34}:
            raise failures.of_source(result, self.request)
        self.answers = self.results.answers()
        # What git's list tells comes first: a tree that is too large, a manifest that is a link.
        tree = project.read_tree(self.answers.tree, self.limits)
        if result.exit_code:
            error = failures.of_source(result, self.request)
            if result.exit_code == 34 and tree.submodules:
                error.remedy = "Submodules are not fetched: what lies in one must become part of the repository, or a git dependency."
            raise error
        self._say("source", f"Built with {self.answers.text('rustc').partition(chr(10))[0]}")
        if tree.submodules:
            self._say("inspect", "The repository has submodules: they are not fetched.")
        return tree

    def _inspect(self, tree: project.Tree) -> project.Project:
        dependencies.check_manifests(self.answers.manifests)
        if tree.folder:
            self._describe(tree)
        return project.read_project(self.answers.metadata, target=self.request.source.rust_target, root=tree.root)

    def _describe(self, tree: project.Tree) -> None:
        """Ask cargo about a project below the repository's root, which only the list of files has told of."""
        self._say("inspect", f"The root folder has no Cargo.toml: the project in {dependencies.shown(tree.folder)} is built.")
        result = self._run(self.phases.inspect(tree.root))
        if result.exit_code:
            raise failures.of_source(result, self.request)
        self.answers = self.results.answers()

    def _lockfile(self, tree: project.Tree) -> str:
        """The repository's Cargo.lock; where it has none, that of an earlier build, or one that is made now."""
        if tree.has_lockfile:
            return self.results.lockfile(tree.root)
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
        result = self._run(self.phases.lock(tree.root))
        if result.exit_code:
            raise failures.of_lock(result)
        return self.results.lockfile(tree.root)

    def _fetch(self, tree: project.Tree, untrusted_lockfile: str) -> None:
        """All that the lock file names, into the crate folder: crates by the worker, git dependencies by cargo."""
        wanted = read_lockfile(untrusted_lockfile)
        self._say("fetch", f"The {len(wanted.crates)} crates that Cargo.lock names")
        deadline = self.started + self.limits.timeout_seconds
        allowance = Allowance(self.limits.dependencies_mb * 2**20, deadline, self.place.cancellation)
        fetched = self.registry.fetch(wanted.crates, allowance)
        files = ((f"{crate}.crate", data) for crate, data in fetched)
        self.place.put_files(CARGO_HOME, itertools.chain([("config.toml", _CARGO_CONFIG)], files))
        result = self._run(self.phases.fetch(tree.root, with_git=wanted.needs_git))
        if result.exit_code:
            raise failures.of_fetch(result, with_git=wanted.needs_git)

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
            again = hashlib.sha256(self.results.module(path, self.limits, log_tail)).hexdigest()
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
        result = self._run(self.phases.compile(name, arguments))
        if result.exit_code or result.stopped or result.out_of_memory:
            raise failures.of_compile(result, self.limits)
        return result.log_tail

    def _run(self, phase: sandbox.Phase) -> sandbox.PhaseResult:
        left_seconds = self.limits.timeout_seconds - (time.monotonic() - self.started)
        phase = replace(phase, timeout_seconds=max(0.1, left_seconds))
        result = self.place.run(phase, lambda line: self._say(phase.name, line))
        if result.unfollowed:
            self._say(phase.name, "... the log was not followed to its end, which is kept ...")
            for line in result.unfollowed:
                self.log.add(line)
        return result

    def _image_target(self) -> str:
        """The target by the name that the image's own toolchain knows."""
        known = self.answers.text("targets").split()
        target = self.request.source.rust_target
        # Toolchains before 1.78 know WASI preview 1 by its old name only.
        names = [name for name in (target, *(old for old, new in ALIASES.items() if new == target)) if name in known]
        if not names:
            sentence = f"The builder image {self.image.image} has no standard library for {target}; it has {', '.join(known) or 'none'}."
            raise ImageMismatch(sentence, remedy="Run `make builder-image`.")
        return names[0]

    def _say(self, phase: str, untrusted_text: str) -> None:
        """Names of folders and targets are strangers' too: every line is made safe here."""
        text = logtext.clean_line(untrusted_text.encode("utf-8", "replace"))
        self.log.add(text)
        self.on_event(BuildEvent(phase, text))
