"""What the files around the package promise: containers, lock, make."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
WORKERS = ("bridge", "compile", "execute", "resolve")


def service(name: str) -> str:
    """The block of one service."""
    found = re.search(rf"^  {name}:\n((?:(?:    .*)?\n)+)", COMPOSE.partition("\nservices:\n")[2], re.MULTILINE)
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("resolve", ["operator_private_key, operator_private_keys"]),
        ("compile", ["api_auth_token"]),
        *[(name, ["api_auth_token, neardata_api_key"]) for name in ("bridge", "execute", "monitor")],
        *[(name, []) for name in ("redis", "flower", "prometheus", "grafana")],
        ("web", ["web_token"]),
    ],
)
def test_a_service_is_given_the_secrets_of_its_role_alone(name: str, secrets: list[str]) -> None:
    assert re.findall(r"secrets: \[(.*)\]", service(name)) == secrets


@pytest.mark.parametrize("variable", ["OPERATOR_KEYS_FILE", "NEARDATA_KEY_FILE"])
def test_a_secret_that_not_everybody_has_is_an_empty_file_unless_one_is_named(variable: str) -> None:
    """A device would do as well, but docker-compose 1.29 would warn of it at each command."""
    [default] = re.findall(rf"file: \$\{{{variable}:-(.*)}}", COMPOSE)
    assert (ROOT / default).is_file()
    assert (ROOT / default).read_bytes() == b""


@pytest.mark.parametrize("name", ["flower", "web"])
def test_a_page_reads_no_setting_of_the_workers(name: str) -> None:
    assert "env_file: []" in service(name)


@pytest.mark.parametrize("name", ["flower", "web", "prometheus", "grafana"])
def test_a_page_is_published_on_loopback_unless_told_otherwise(name: str) -> None:
    assert re.search(rf"ports: \[\"\$\{{{name.upper()}_ADDRESS:-127\.0\.0\.1:\d+}}:\d+\"\]", service(name))


def test_the_docker_socket_is_in_the_compile_worker_alone() -> None:
    assert COMPOSE.count("docker.sock:") == 1
    assert "docker.sock" in service("compile")


@pytest.mark.parametrize("name", WORKERS)
def test_workers_have_a_grace_period_and_the_common_hardening(name: str) -> None:
    assert "<<: *worker" in service(name)
    assert "stop_grace_period:" in service(name)
    common = COMPOSE.partition("x-worker:")[2].partition("\nservices:")[0]
    for line in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true", "init: true"):
        assert line in common


def test_redis_keeps_what_it_is_given() -> None:
    assert '--appendonly, "yes"' in service("redis")
    assert "noeviction" in service("redis")


def test_the_image_needs_no_buildkit_and_no_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "# syntax=" not in dockerfile
    assert "--mount" not in dockerfile
    assert re.search(r"^USER offchainvm$", dockerfile, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.lock", "deploy/images/requirements.lock"])
def test_the_lock_has_hashes_and_no_address(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    assert "@ " not in lock
    pinned = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    assert len(re.findall(r"^[a-z0-9-]+==.*\\\n    --hash=sha256:", lock, re.MULTILINE)) == len(pinned)


def asked_for(heading: str) -> set[str]:
    """The packages of one list of pyproject.toml."""
    listed = re.search(rf"^{heading} = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert listed is not None
    return {name.lower().replace("_", "-") for name in re.findall(r'"([A-Za-z0-9_-]+)', listed[1])} - {"offchainvm"}


def pinned(lock: str) -> dict[str, str]:
    """Each package of a lock with its versions, markers and hashes."""
    entries = re.findall(r"^([a-z0-9-]+)(==.*\n(?:    --hash.*\n)+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {f"{name}{rest.splitlines()[0]}": rest for name, rest in entries}


def names(lock: str) -> set[str]:
    return {entry.partition("==")[0] for entry in pinned(lock)}


def test_the_lock_has_every_package_that_pyproject_asks_for() -> None:
    everything = {name for heading in ("dependencies", "dashboard", "web", "devnet", "dev") for name in asked_for(heading)}
    assert everything <= names("requirements.lock")


def test_the_lock_of_the_image_has_what_it_runs_and_no_tool_of_a_developer() -> None:
    lock = names("deploy/images/requirements.lock")
    assert asked_for("dependencies") | asked_for("dashboard") | asked_for("web") <= lock
    assert lock & (asked_for("dev") | asked_for("devnet")) == set()


def test_the_lock_of_the_image_names_the_versions_and_hashes_that_are_tested() -> None:
    tested = pinned("requirements.lock")
    image = pinned("deploy/images/requirements.lock")
    assert {entry.partition(" ;")[0].rstrip(" \\") for entry in image} <= {entry.partition(" ;")[0].rstrip(" \\") for entry in tested}
    hashes = {word for rest in tested.values() for word in re.findall(r"sha256:\w+", rest)}
    assert {word for rest in image.values() for word in re.findall(r"sha256:\w+", rest)} <= hashes


def test_every_way_to_the_image_installs_its_lock_by_hash() -> None:
    for file in ("Dockerfile", "deploy/images/worker-image"):
        assert re.search(r"--require-hashes -r \S*/requirements\.lock", (ROOT / file).read_text()), file
    assert "COPY . /source" in (ROOT / "Dockerfile").read_text()
    assert "!deploy/images/requirements.lock" in (ROOT / ".dockerignore").read_text()
    base = re.search(r"^ARG BASE_IMAGE=python:3\.(\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert int(base[1]) >= 12, "below, a package is compiled, and the base has no compiler"


def test_make_lists_its_targets() -> None:
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "dev", "test", "test-unit", "lint", "types", "imports", "check", "bench", "builder-image", "lock", "clean"):
        assert re.search(rf"^  make {target}\s+\S", shown, re.MULTILINE), target


def test_the_program_ci_runs_is_what_the_readme_says() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make check$", ci, re.MULTILINE)
    assert ci.rstrip().endswith("make test")
    assert "make test" in (ROOT / "README.md").read_text()
