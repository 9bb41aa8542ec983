"""docker-compose.yml and .env, read by the docker-compose that is here: what each container would be given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from offchainvm.settings import setting_table

ROOT = Path(__file__).parents[3]
OURS = ("bridge", "compile", "execute", "resolve", "monitor", "flower", "web")
SERVICES = {*OURS, "redis", "prometheus", "grafana"}
Config = Callable[..., dict[str, str]]


def compose_command() -> list[str]:
    """Compose 1 or 2, whichever this machine has."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    if not plugin:
        pytest.skip("neither docker-compose nor docker compose is here")
    return ["docker", "compose"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The services as docker-compose understands them, each as its YAML, where `.env` has these lines and nothing else is set."""

    def read(*lines: str) -> dict[str, str]:
        shutil.copy(ROOT / "docker-compose.yml", tmp_path)
        shutil.copytree(ROOT / "deploy" / "compose", tmp_path / "deploy" / "compose", dirs_exist_ok=True)
        (tmp_path / ".env").write_text("".join(f"{line}\n" for line in ("COMPOSE_PROFILES=monitor,web,observe", *lines)))
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        command = [*compose_command(), "config"]
        shown = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        services = re.search(r"^services:\n((?:  .*\n)+)", shown.stdout, re.MULTILINE)
        assert services is not None
        parts = re.split(r"^  ([a-z]+):\n", services[1], flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    return read


def value(service: str, name: str) -> str | None:
    """What stands behind a name in a service's YAML."""
    found = re.search(rf"^ +{name}: (.*)$", service, re.MULTILINE)
    return found[1].strip("\"'") if found else None


def values(services: dict[str, str], name: str) -> set[str | None]:
    return {value(services[service], name) for service in OURS}


def test_compose_takes_the_file(config: Config) -> None:
    assert set(config()) == SERVICES


def test_what_stands_in_the_env_file_is_how_many_of_each_and_who_may_use_docker(config: Config) -> None:
    services = config("EXECUTE_COUNT=8", "COMPILE_COUNT=2", "REDIS_COUNT=0", "DOCKER_GROUP=4242", "REDIS_IMAGE=offchainvm-redis")
    counts = {name: value(services[name], "scale") for name in ("execute", "compile", "redis", "bridge")}
    assert counts == {"execute": "8", "compile": "2", "redis": "0", "bridge": "1"}
    assert "4242" in services["compile"].partition("group_add:")[2]
    assert value(services["redis"], "image") == "offchainvm-redis"


def test_another_count_changes_nothing_but_that_service_so_no_container_starts_anew(config: Config) -> None:
    names = re.findall(r"\$\{([A-Z]+_COUNT):-1\}", (ROOT / "docker-compose.yml").read_text())
    assert len(names) == len(set(names)) >= 7
    before, after = config(), config(*(f"{name}=5" for name in names), "COMPOSE_PROFILES=monitor,web")
    counted = {name.removesuffix("_COUNT").lower() for name in names}
    for name in SERVICES:
        assert after[name] == (before[name].replace("scale: 1\n", "scale: 5\n") if name in counted else before[name])


def test_every_container_of_ours_uses_the_redis_of_the_file_unless_another_is_named(config: Config) -> None:
    assert values(config(), "REDIS_URL") == {"redis://redis:6379/0"}
    named = "sentinel://:word@one.internal:26379,two.internal:26379/0?service=jobs"
    assert values(config(f"REDIS_URL={named}"), "REDIS_URL") == {named}


def test_a_broker_of_its_own_reaches_every_container_of_ours(config: Config) -> None:
    named = "amqp://user:word@rabbit.internal:5672/offchainvm"
    assert values(config(f"BROKER_URL={named}"), "BROKER_URL") == {named}


def test_secrets_left_in_the_env_file_reach_no_container(config: Config) -> None:
    names = [row.name for row in setting_table() if row.secret and re.search("TOKEN|KEY", row.name)]
    services = config(*(f"{name}=left-behind" for name in names))
    assert {name: values(services, name) for name in names} == {name: {""} for name in names}
    assert "left-behind" not in str(services)


def test_containers_of_one_service_do_not_share_a_name(config: Config) -> None:
    assert values(config("WORKER_ID=worker-1"), "WORKER_ID") == {""}


def test_a_mirror_of_sources_named_in_the_env_file_is_in_the_containers_that_clone(config: Config) -> None:
    services = config("COMPOSE_FILE=docker-compose.yml:deploy/compose/mirror.yml", "SOURCE_MIRROR_DIR=/srv/mirror")
    for name in ("bridge", "compile"):
        assert value(services[name], "SOURCE_MIRROR_URL") == "file:///srv/mirror"
        assert "/srv/mirror" in services[name].partition("volumes:")[2]


def test_an_authority_of_ones_own_is_trusted_by_every_container_of_ours(config: Config) -> None:
    services = config("COMPOSE_FILE=docker-compose.yml:deploy/compose/authority.yml", "CA_FILE=/srv/ca.pem")
    assert values(services, "CA_BUNDLE") == {"/etc/offchainvm/ca.pem"}
    assert all("/srv/ca.pem" in services[name].partition("volumes:")[2] for name in OURS)
