"""The sandboxed build beside the same cargo command run bare in the same image; a cache hit; eight builds at once.

Turn by turn in one run, and the fastest round counts. Bare: one container without limits that is there already, its
sources mounted, cargo run in it by hand. What the sandbox adds is getting the source, an own container and fresh
volumes for each phase, and looking at what came out.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from docker.models.containers import Container
from docker.types import Mount
from pydantic import SecretStr

from offchainvm.cli.stack import Stack, StackOptions
from offchainvm.compiler import engine
from offchainvm.compiler.base import BuildRequest, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.local import publish_folder
from offchainvm.compiler.phases import COMPILE_ENVIRONMENT
from offchainvm.compiler.source import parse_source, source_key
from offchainvm.coordinator import Coordinator
from offchainvm.models import CodeSource
from offchainvm.modules import ModuleCache
from offchainvm.settings import load_only

TARGET = "wasm32-unknown-unknown"
AT_ONCE = 8
_MANIFEST = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[lib]\ncrate-type = ["cdylib"]\n[workspace]\n'
_LOCKFILE = 'version = 3\n\n[[package]]\nname = "guest"\nversion = "0.1.0"\n'
_FUNCTION = """pub fn f{n}(map: &mut std::collections::BTreeMap<String, [u64; {n}]>, text: &str) -> u64 {{
    for word in text.split('{letter}') {{ map.entry(format!("{{word}}-{{}}", word.len() * {n})).or_insert([0; {n}])[{n} - 1] += 1; }}
    map.values().map(|found| found.iter().sum::<u64>()).sum()
}}
"""


@dataclass(frozen=True)
class Program:
    """A crate without dependencies, with as much to compile as ``functions`` say."""

    name: str
    functions: int


PROGRAMS = (Program("small", 1), Program("middling", 40), Program("large", 160))


@dataclass(frozen=True)
class MeasuredBuild:
    """Fastest rounds of one program, in seconds."""

    name: str
    bare_seconds: float
    sandboxed_seconds: float
    runtime_seconds: float
    """In the stronger runtime DOCKER_RUNTIME; 0 where none was named."""


@dataclass(frozen=True)
class MeasuredCache:
    """One build, and the same module found instead."""

    build_seconds: float
    on_disk_ms: float
    from_coordinator_ms: float


@dataclass(frozen=True)
class MeasuredCrowd:
    """As many builds one by one, and all at once."""

    builds: int
    one_by_one_seconds: float
    at_once_seconds: float


class Bench:
    """The programs as repositories, and a builder that builds them."""

    def __init__(self, folder: Path, *, runtime: str) -> None:
        self._folder, self._mirror = folder, folder / "mirror"
        folder.chmod(0o755)
        self._image = load_only(["builder_image"]).builder_image
        self.runtime = runtime
        self._shas = {program.name: self._publish(program) for program in PROGRAMS}

    def measure_build(self, program: Program, *, rounds: int) -> MeasuredBuild:
        ways: dict[str, Callable[[], object]] = {"sandboxed": lambda: self.build(program)}
        if self.runtime:
            ways["runtime"] = lambda: self.build(program, runtime=self.runtime)
        with self._bare(program) as bare:
            best = _fastest({"bare": bare, **ways}, rounds)
        return MeasuredBuild(program.name, best["bare"], best["sandboxed"], best.get("runtime", 0.0))

    def measure_cache(self, program: Program, *, rounds: int) -> MeasuredCache:
        built, sha = self.build(program), self._shas[program.name]
        key = source_key(f"someone/{program.name}", sha, TARGET)
        with (
            Stack(StackOptions(roles=())) as stack,
            contextlib.closing(Coordinator(stack.coordinator_url, SecretStr(stack.api_token))) as far,
        ):
            far.upload(key, f"someone/{program.name}", sha, built.wasm)
            full = ModuleCache(self._folder / "full", max_bytes=2**30, coordinator=far)
            full.fetch(key)

            def download() -> None:
                with tempfile.TemporaryDirectory() as empty:
                    ModuleCache(Path(empty), max_bytes=2**30, coordinator=far).fetch(key)

            best = _fastest({"disk": lambda: full.fetch(key), "far": download}, 10 * rounds)
        return MeasuredCache(built.seconds, best["disk"] * 1000, best["far"] * 1000)

    def measure_crowd(self, program: Program) -> MeasuredCrowd:
        def one_by_one() -> None:
            for _ in range(AT_ONCE):
                self.build(program)

        def at_once() -> None:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda _: self.build(program), range(AT_ONCE)))

        best = _fastest({"one": one_by_one, "all": at_once}, 1)
        return MeasuredCrowd(AT_ONCE, best["one"], best["all"])

    def build(self, program: Program, *, runtime: str = "") -> BuiltModule:
        mirror_url = f"file://{self._mirror}"
        source = CodeSource(repo=f"someone/{program.name}", commit=self._shas[program.name], build_target=TARGET)
        made = SandboxBuilder(
            image=self._image, state_dir=self._folder / "state", owner="benchmark", runtime=runtime, mirror_url=mirror_url
        )
        with made as builder:
            return builder.build(BuildRequest(parse_source(source, mirror_url=mirror_url), source.commit))

    def _publish(self, program: Program) -> str:
        tree = self._tree(program)
        (tree / "src").mkdir(parents=True)
        functions = [_FUNCTION.format(n=number, letter=chr(97 + number % 26)) for number in range(1, program.functions + 1)]
        calls = " + ".join(f"f{number}(&mut Default::default(), text)" for number in range(1, program.functions + 1))
        entry = f'#[no_mangle]\npub extern "C" fn execute(_p: i32, n: i32) -> i32 {{ let text = &format!("{{n}}"); ({calls}) as i32 }}\n'
        for name, content in {"Cargo.toml": _MANIFEST, "Cargo.lock": _LOCKFILE, "src/lib.rs": "".join(functions) + entry}.items():
            (tree / name).write_text(content)
        return publish_folder(tree, self._mirror, owner="someone", name=program.name)

    def _tree(self, program: Program) -> Path:
        return self._folder / "trees" / program.name

    @contextlib.contextmanager
    def _bare(self, program: Program) -> Iterator[Callable[[], None]]:
        toolchain = (resources.files("offchainvm.compiler") / "scripts" / "toolchain.sh").read_text()
        command = f"cargo build --offline --locked --release --target {TARGET} --manifest-path /src/Cargo.toml --lib"
        script = f"cd / && rm -rf /build/* && mkdir -p $HOME && {{ {toolchain}\n}} && exec {command}"
        with contextlib.closing(engine.connect()) as client:
            container: Container = client.containers.run(
                self._image,
                ["sleep", "3600"],
                detach=True,
                init=True,
                network_mode="none",
                environment=COMPILE_ENVIRONMENT,
                tmpfs={"/build": "exec", "/cargo": ""},
                mounts=[Mount("/src", str(self._tree(program)), type="bind", read_only=True)],
            )
            try:
                yield lambda: _run(container, script)
            finally:
                container.remove(force=True)


def _run(container: Container, script: str) -> None:
    done = container.exec_run(["sh", "-c", script])
    if done.exit_code:
        raise RuntimeError(done.output.decode("utf-8", "replace")[-2000:])


def _fastest(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    return best
