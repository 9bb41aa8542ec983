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
        ("resolve", ["operator_private_key"]),
        *[(name, ["api_auth_token"]) for name in ("bridge", "compile", "execute", "monitor")],
        *[(name, []) for name in ("redis", "flower", "prometheus", "grafana")],
        ("web", ["web_token"]),
    ],
)
def test_a_service_is_given_the_secrets_of_its_role_alone(name: str, secrets: list[str]) -> None:
    assert re.findall(r"secrets: \[(.*)\]", service(name)) == secrets


@pytest.mark.parametrize("name", ["flower", "web"])
def test_a_page_reads_no_setting_of_the_workers(name: str) -> None:
    assert "env_file: []" in service(name)


@pytest.mark.parametrize("name", ["flower", "web", "prometheus", "grafana"])
def test_a_page_is_published_on_loopback_unless_told_otherwise(name: str) -> None:
    assert re.search(rf"ports: \[\"\$\{{{name.upper()}_ADDRESS:-127\.0\.0\.1:\d+}}:\d+\"\]", service(name))


@pytest.mark.parametrize("name", ["bridge", "compile", "execute", "monitor"])
def test_a_secret_left_in_the_env_file_is_blanked(name: str) -> None:
    assert "&with-token" in service(name) or "*with-token" in service(name)
    for secret in ("API_AUTH_TOKEN", "OPERATOR_PRIVATE_KEY", "OPERATOR_PRIVATE_KEYS"):
        assert f'{secret}: ""' in service("bridge").partition("&with-token")[2]


def test_the_docker_socket_is_in_the_compile_worker_alone() -> None:
    assert COMPOSE.count("docker.sock:") == 1
    assert "docker.sock" in service("compile")


def test_the_token_is_blanked_in_the_resolve_worker() -> None:
    assert 'API_AUTH_TOKEN: ""' in service("resolve")


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


def test_the_lock_has_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "@ " not in lock
    pinned = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    assert len(re.findall(r"^[a-z0-9-]+==.*\\\n    --hash=sha256:", lock, re.MULTILINE)) == len(pinned)


def test_the_lock_has_every_package_that_pyproject_asks_for() -> None:
    asked = re.findall(r'^    "([A-Za-z0-9_-]+)', (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[0], re.MULTILINE)
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {name.lower().replace("_", "-") for name in asked} - {"framework", "programming", "offchainvm"} <= pinned


def test_make_lists_its_targets() -> None:
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "dev", "test", "test-unit", "lint", "types", "imports", "check", "bench", "builder-image", "lock", "clean"):
        assert re.search(rf"^  make {target}\s+\S", shown, re.MULTILINE), target


def test_the_program_ci_runs_is_what_the_readme_says() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make check$", ci, re.MULTILINE)
    assert ci.rstrip().endswith("make test")
    assert "make test" in (ROOT / "README.md").read_text()
