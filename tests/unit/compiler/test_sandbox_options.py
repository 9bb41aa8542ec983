"""The flags of a build container, and what needs no engine to be seen."""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_builder import EMPTY_OUTPUT_MODULE, FakeBuilder
from urllib3.exceptions import ProtocolError

from offchainvm.compiler import archive, engine, image, sandbox
from offchainvm.compiler.artifact import check_artifact
from offchainvm.compiler.base import BuildEvent, BuildRequest
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.network import Network
from offchainvm.compiler.phases import COMPILE_ENVIRONMENT, Phases
from offchainvm.compiler.sandbox import Phase, container_options, volume_options
from offchainvm.compiler.source import parse_source
from offchainvm.errors import BuildError, Unavailable
from offchainvm.models import CodeSource
from offchainvm.settings import Settings

PHASE = Phase(name="compile", script="compile.sh", memory_mb=512, cpus=1.5, processes=64, timeout_seconds=10)
REQUEST = BuildRequest(parse_source(CodeSource(repo="owner/name", commit="main")), "a" * 40)


def test_a_phase_gets_nothing_that_it_was_not_granted() -> None:
    options = container_options(PHASE, log_bytes=1000)

    assert options["network_mode"] == "none"
    assert options["cap_drop"] == ["ALL"]
    assert options["read_only"] is True
    assert options["user"] == "10001:10001"
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert options["mem_limit"] == options["memswap_limit"] == 512 * 2**20
    assert options["nano_cpus"] == 1_500_000_000
    assert options["pids_limit"] == 64
    assert options["use_config_proxy"] is False
    assert all("noexec" in mount for mount in options["tmpfs"].values())
    assert options["log_config"].config == {"max-size": "1000", "max-file": "1"}
    assert "privileged" not in options
    assert "runtime" not in options


def test_network_and_runtime_are_granted_by_name() -> None:
    networked = Phase(name="fetch", script="fetch.sh", memory_mb=64, cpus=1, processes=8, timeout_seconds=1, network="filtered")

    options = container_options(networked, log_bytes=1, runtime="runsc")

    assert (options["network_mode"], options["runtime"]) == ("filtered", "runsc")


def test_a_kernel_of_its_own_counts_processes_for_itself() -> None:
    limits = {limit.name for limit in container_options(PHASE, log_bytes=1)["ulimits"]}
    options = container_options(PHASE, log_bytes=1, runtime="runsc", own_kernel=True)

    assert "nproc" not in limits
    assert [limit.hard for limit in options["ulimits"] if limit.name == "nproc"] == [64]
    assert options["pids_limit"] >= 8 * 64 + 70


@pytest.mark.parametrize(
    ("runtime", "default", "own_kernel"), [("", "runc", False), ("", "runsc", True), ("runc", "runsc", False), ("gvisor", "runc", True)]
)
def test_gvisor_is_known_by_its_name_or_program_and_as_the_engines_default(runtime: str, default: str, own_kernel: bool) -> None:
    runtimes = {"runc": {"path": "runc"}, "runsc": {"path": "runsc"}, "gvisor": {"path": "/opt/runsc"}}
    client: Any = SimpleNamespace(info=lambda: {"Runtimes": runtimes, "DefaultRuntime": default, "NCPU": 3, "MemTotal": 2**30})

    assert engine.find_machine(client, runtime) == engine.Machine(runtime or default, own_kernel, cpus=3, memory_mb=1024)


def test_a_volume_has_a_quota_of_bytes_and_of_inodes() -> None:
    assert "size=100m,nr_inodes=25600," in volume_options(100)["o"]
    assert "nr_inodes=4096," in volume_options(1)["o"]


def test_the_compile_phase_is_told_nothing_of_the_host() -> None:
    assert not [name for name in COMPILE_ENVIRONMENT if "proxy" in name.lower() or name.startswith(("GIT", "SSL"))]


@pytest.mark.parametrize("mirror_url", ["", "https://user:password@mirror.example/git", "file:///srv/mirror"])
def test_only_what_fetches_gets_a_network_and_the_way_to_sources(mirror_url: str) -> None:
    phases = Phases(REQUEST, Network(mirror_url, name="filtered"))
    fetching = {"source": phases.source(), "lock": phases.lock("/src"), "fetch": phases.fetch("/src", with_git=True)}
    others = [phases.inspect("/src"), phases.fetch("/src", with_git=False), *(phases.compile(name, ()) for name in ("compile", "verify"))]

    assert {name for name, phase in fetching.items() if not phase.network} == ({"source"} if mirror_url.startswith("file:") else set())
    for phase in fetching.values():
        assert "net" in phase.readable
        assert "GIT_CONFIG_GLOBAL" in phase.environment
    for phase in others:
        assert not phase.network
        assert not phase.mirror_folder
        assert "net" not in phase.readable
        assert not any(name.startswith("GIT") or "mirror" in value for name, value in phase.environment.items())


def test_limits_come_from_the_settings() -> None:
    settings = Settings(compile_timeout_seconds=7, compile_memory_limit_mb=600, compile_cpu_limit=0.5, build_disk_mb=100)

    assert BuildLimits.from_settings(settings) == BuildLimits(timeout_seconds=7, memory_mb=600, cpus=0.5, disk_mb=100)


@pytest.mark.parametrize(("timeout_seconds", "idle_seconds"), [(30, 240), (300, 240), (3600, 2880)])
def test_who_allows_more_time_allows_a_longer_silence(timeout_seconds: int, idle_seconds: int) -> None:
    assert BuildLimits.from_settings(Settings(compile_timeout_seconds=timeout_seconds)).idle_seconds == idle_seconds


@pytest.mark.parametrize("answer", [b"", b"no archive at all", b"\0" * 10240])
@pytest.mark.parametrize("read", [archive.only_file, archive.files])
def test_an_engine_that_gives_no_file_is_the_sandbox_failing(answer: bytes, read: Callable[..., Any]) -> None:
    with pytest.raises(BuildError, match="sandbox_error"), archive.unpacked(io.BytesIO(answer)) as untrusted_tar:
        read(untrusted_tar, 100)


def test_a_connection_that_breaks_in_a_file_is_an_engine_that_is_away() -> None:
    with pytest.raises(Unavailable), engine.translated():
        raise ProtocolError("broken")


def test_a_host_without_room_for_a_builds_files_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    place = sandbox.Sandbox(
        cast("Any", None), build_id="x", image="x", owner="x", runtime="", timeout_seconds=1, volumes_mb={}, log_bytes=1
    )

    with pytest.raises(Unavailable, match="No space left on device"):
        place.put_files("/src", [("x", b"")])


def test_an_engine_that_is_away_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")

    with pytest.raises(Unavailable) as caught:
        engine.connect()
    assert caught.value.service == "docker"
    with SandboxBuilder(image="x", state_dir=tmp_path, owner="x") as builder, pytest.raises(Unavailable):
        builder.build(REQUEST)


def test_an_image_record_is_read_back_for_its_image_only(tmp_path: Path) -> None:
    made = image.ImageRecord("builder", ("sha256:1",), "debian", "2026-01-01", "rustc 1", "clang 2", ("wasm32-wasip1",))
    record = image.write_record(tmp_path / "new", made)

    assert image.read_record(tmp_path / "new", "builder") == record == made
    assert record.summary == "rustc 1 for wasm32-wasip1, C: clang 2"
    assert image.read_record(tmp_path / "new", "another") is None
    (tmp_path / "new" / image.RECORD_NAME).write_text("{broken")
    assert image.read_record(tmp_path / "new", "builder") is None


def test_the_module_of_the_double_is_one_that_the_engine_takes() -> None:
    check_artifact(EMPTY_OUTPUT_MODULE, limit_bytes=1000)


@pytest.mark.parametrize(
    ("wasm", "code"), [(b"", "artifact_invalid"), (b"\0asm\1\0\0\0", "artifact_invalid"), (EMPTY_OUTPUT_MODULE, "artifact_too_large")]
)
def test_bytes_that_the_engine_would_not_run_are_refused(wasm: bytes, code: str) -> None:
    with pytest.raises(BuildError, match=code):
        check_artifact(wasm, limit_bytes=10)


def test_the_double_answers_from_its_table() -> None:
    events = list[BuildEvent]()
    builder = FakeBuilder({"owner/name": b"wasm"}, default=None)

    assert builder.build(REQUEST, on_event=events.append).wasm == b"wasm"
    assert builder.requests == [REQUEST]
    assert events
    with pytest.raises(BuildError, match="repo_not_found"):
        FakeBuilder(default=None).build(REQUEST)
