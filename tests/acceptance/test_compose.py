"""The worker in containers, by docker-compose.yml and .env: fifty requests through three execute containers, one of which is killed; who
looks on; the commands of docs/deploy.md; a build; and how all of it stops.

The worker's image is made as a user makes it (`make image`), under a name of its own. Where no registry can be reached,
its base is made of Debian packages: that is what this test's time is spent on, once a machine.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import prometheus
import pytest
import urllib3
from docker.errors import APIError
from docker.models.containers import Container
from prometheus import Prometheus
from world import LOCKFILE, MANIFEST, RUST_ECHO, SHA, TARGET, echo_module, until

from offchainvm.compiler import engine
from offchainvm.compiler.image import find_layers
from offchainvm.compiler.local import publish_folder
from offchainvm.compiler.source import source_key
from offchainvm.devnet.chain import GENESIS_HEIGHT
from offchainvm.devnet.client import DevnetClient, Limits
from offchainvm.devnet.embedded_redis import free_port
from offchainvm.devnet.genesis import Keys

# The first of these tests makes the images, on a new machine out of Debian packages.
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
IMAGE = "offchainvm-worker-test"
OWN_REDIS, REGISTRYS_REDIS = "offchainvm-redis", "valkey/valkey:8"
REPOSITORY = "https://github.com/tests/echo"
SCALE = {"redis": 1, "bridge": 1, "compile": 1, "execute": 3, "resolve": 1, "monitor": 1, "web": 1, "flower": 1, "prometheus": 1}
SCRAPED = sum(SCALE.values()) - 3
"""All but Redis, Flower and Prometheus itself."""
FILES = ("docker-compose.yml", "deploy/compose/mirror.yml")
EXECS = re.findall(r"^docker-compose exec (.*?)(?:  +#.*)?$", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE)
UNCHECKED = {"flower", "prometheus"}
"""Services without a health check."""
REQUESTS, ROUNDS = 50, 30_000_000
ANSWER_SECONDS = 150
"""Longer than the contract waits: a fleet that is slow to start is told apart from an answer that is lost."""
WEB_TOKEN = "the token of the status page"


@pytest.fixture(scope="module")
def images(builder_image: None) -> Iterator[dict[str, str]]:
    """The images of worker and Redis, as variables of docker-compose; the worker's is removed at the end."""
    if not shutil.which("docker") or not shutil.which("docker-compose"):
        pytest.skip("neither docker nor docker-compose is here")
    script = ["sh", str(ROOT / "deploy" / "images" / "worker-image"), IMAGE]
    client = engine.connect()
    unnamed = {image.id for image in client.images.list(filters={"dangling": True})}
    made = subprocess.run(script, env={**os.environ, "VENV": sys.prefix}, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    yield {"WORKER_IMAGE": IMAGE, "REDIS_IMAGE": OWN_REDIS if find_layers(client, OWN_REDIS) else REGISTRYS_REDIS}
    stages = {image.id for image in client.images.list(filters={"dangling": True})} - unnamed
    for name in (IMAGE, *stages):
        with suppress(APIError):  # somebody uses it
            client.images.remove(name)
    client.close()


def for_tests(folder: Path) -> Path:
    """What differs here: health is looked at more often, and this machine's own Prometheus stands in for its makers' image.

    It is started as theirs is, with deploy's configuration.
    """
    shutil.copytree(prometheus.DEPLOYED, folder / "deploy" / "prometheus")
    program = {
        "image": IMAGE,
        "user": "nobody",
        "entrypoint": ["/bin/prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data"],
        "volumes": [f"{prometheus.program()}:/bin/prometheus:ro"],
        "tmpfs": ["/tmp"],  # noqa: S108 the container's
        "healthcheck": {"disable": True},
    }
    services = {name: {"healthcheck": {"interval": "10s"}} for name in SCALE.keys() - UNCHECKED}
    (folder / "tests.json").write_text(json.dumps({"services": {**services, "prometheus": program}}))
    return folder / "tests.json"


@contextmanager
def service(name: str, folder: Path, host: str, *more: str) -> Iterator[dict[str, Any]]:
    """A local Coordinator or chain where containers reach it; what it says of itself."""
    command = [sys.executable, "-m", "offchainvm.devnet", name, "--host", host, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Coordinator and chain on the address that containers know this host by."""
    client = engine.connect()
    bridge = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    client.close()
    host = bridge.get("Gateway") or str(ipaddress.ip_network(bridge["Subnet"])[1])
    folder = tmp_path_factory.mktemp("outside")
    token, keys = folder / "token", folder / "keys.json"
    with (
        service("coordinator", folder, host, "--token-file", str(token)) as coordinator,
        service("chain", folder, host, "--keys-file", str(keys)) as chain,
    ):
        yield {**chain, "coordinator_url": coordinator["url"], "token": token.read_text().strip(), "keys": Keys.load(keys)}


class Compose:
    """One project of docker-compose, by a name of its own, and with all that differs in its `.env`."""

    def __init__(self, folder: Path, images: dict[str, str], outside: dict[str, Any]) -> None:
        settings = {
            "API_BASE_URL": outside["coordinator_url"],
            "NEAR_RPC_URL": outside["rpc_url"],
            "NEARDATA_API_URL": outside["neardata_url"],
            "FASTNEAR_API_URL": outside["fastnear_url"],
            "OFFCHAINVM_CONTRACT_ID": outside["contract_id"],
            "OPERATOR_ACCOUNT_ID": outside["operator_account_id"],
            "ENABLE_EVENT_MONITOR": "true",
            "START_BLOCK_HEIGHT": str(GENESIS_HEIGHT + 1),
            "POLL_TIMEOUT_SECONDS": "2",
            **images,
            "COMPOSE_PROFILES": "monitor,web,observe",
            "EXECUTE_COUNT": str(SCALE["execute"]),
            "DOCKER_GROUP": str(Path("/var/run/docker.sock").stat().st_gid),
        }
        (folder / "key").write_text(outside["keys"].function_call_keys[0].secret_text)
        (folder / "api_token").write_text(outside["token"])
        (folder / "web_token").write_text(WEB_TOKEN)
        for secret in ("key", "api_token", "web_token"):
            (folder / secret).chmod(0o444)  # its folder is ours alone; the container's user is another
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("web", "flower", "prometheus")}
        self.mirror = folder / "mirror"
        self.mirror.mkdir()
        settings |= {
            "OPERATOR_KEY_FILE": str(folder / "key"),
            "API_TOKEN_FILE": str(folder / "api_token"),
            "WEB_TOKEN_FILE": str(folder / "web_token"),
            "SOURCE_MIRROR_DIR": str(self.mirror),
            **{f"{name.upper()}_ADDRESS": address for name, address in self.addresses.items()},
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._environment = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST") if name in os.environ} | {"HOME": str(folder)}
        self.project = f"offchainvm-test-{secrets.token_hex(4)}"
        self._folder = folder
        shutil.copytree(ROOT / "deploy" / "compose", folder / "deploy" / "compose")
        self._files = (*(str(ROOT / file) for file in FILES), str(for_tests(folder)))

    def __call__(self, *words: str) -> str:
        files = [word for file in self._files for word in ("-f", file)]
        command = ["docker-compose", "-p", self.project, *files, "--project-directory", str(self._folder), *words]
        done = subprocess.run(command, env=self._environment, cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def containers(self) -> list[Container]:
        """Every container of the project, stopped ones included."""
        client = engine.connect()
        found = client.containers.list(all=True, filters={"label": f"com.docker.compose.project={self.project}"}, ignore_removed=True)
        client.close()
        return list(found)

    def states(self, name: Callable[[Container], str]) -> dict[tuple[str, str], int]:
        """How many containers each service has in each state that ``name`` tells."""
        return Counter((one.labels["com.docker.compose.service"], name(one)) for one in self.containers())


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory, images: dict[str, str], outside: dict[str, Any]) -> Iterator[Compose]:
    """Everything is up but Grafana, which nobody can make without a registry."""
    project = Compose(tmp_path_factory.mktemp("compose"), images, outside)
    try:
        project("up", "-d", *SCALE)
        yield project
    finally:
        project("down", "--volumes", "--timeout", "5")
        assert project.containers() == []


def main_process(project: str, service: str) -> int:
    """Process id, on this host, of the first container of a service."""
    client = engine.connect()
    labels = [f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"]
    first = client.containers.list(filters={"label": labels}, ignore_removed=True)[0]
    client.close()
    return int(first.attrs["State"]["Pid"])


def secrets_of(outside: dict[str, Any]) -> tuple[str, str, str]:
    return outside["keys"].function_call_keys[0].secret_text, outside["token"], WEB_TOKEN


def holders(containers: Sequence[Container], mounted: str) -> set[str]:
    """The services in whose containers something is mounted."""
    return {one.labels["com.docker.compose.service"] for one in containers if mounted in str(one.attrs["Mounts"])}


def test_fifty_requests_are_answered_once_each_by_three_that_execute_though_one_is_killed(
    compose: Compose, outside: dict[str, Any]
) -> None:
    http = urllib3.PoolManager(retries=False)
    module = f"{outside['coordinator_url']}/control/wasm/{source_key(REPOSITORY, SHA, TARGET)}"
    assert http.request("PUT", module, body=echo_module(rounds=ROUNDS)).status < 300
    client = DevnetClient(outside["url"], outside["keys"])
    try:
        first = client.request_execution(REPOSITORY, SHA, TARGET, "words 0", Limits())
        # The fleet is up then: the contract's time for the others runs from here.
        client.result(first.request_id, timeout_seconds=ANSWER_SECONDS)
        sent = [client.send_request(REPOSITORY, SHA, TARGET, f"words {number}", Limits()) for number in range(1, REQUESTS)]
        requests = [first, *client.landed(sent)]
        client.result(requests[1].request_id, timeout_seconds=ANSWER_SECONDS)
        # As the kernel would when memory is short; `docker kill` would count as a wish, and nothing would start again.
        os.kill(main_process(compose.project, "execute"), signal.SIGKILL)
        results = [client.result(request.request_id, timeout_seconds=ANSWER_SECONDS) for request in requests]
    except BaseException:
        print(compose("logs", "--tail", "30"))
        raise
    finally:
        client.close()
    others = {number: result for number, result in enumerate(results) if result.value != f"words {number}"}
    assert others == {}, compose("logs", "--tail", "200", "bridge", "execute")
    assert len({result.resolved_by for result in results}) == REQUESTS
    running = {(name, "running"): count for name, count in SCALE.items()}
    until(lambda: compose.states(lambda one: one.status) == running, "every service to run again")
    logs = compose("logs")
    assert [secret for secret in secrets_of(outside) if secret in logs] == []


def test_every_container_of_ours_is_confined(compose: Compose) -> None:
    ours = [one for one in compose.containers() if one.labels["com.docker.compose.service"] not in {"redis", "prometheus"}]
    for one in ours:
        limits = one.attrs["HostConfig"]
        assert (limits["ReadonlyRootfs"], limits["CapDrop"], limits["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges:true"]), one.name
        assert one.attrs["Config"]["User"] == "offchainvm"
    assert holders(ours, "docker.sock") == {"compile"}


def test_every_secret_is_a_file_in_the_containers_that_need_it_alone(compose: Compose, outside: dict[str, Any]) -> None:
    ours = compose.containers()
    assert holders(ours, "/run/secrets/api_auth_token") == {"bridge", "compile", "execute", "monitor"}
    assert holders(ours, "/run/secrets/operator_private_key") == {"resolve"}
    assert holders(ours, "/run/secrets/web_token") == {"web"}
    told = str([one.attrs for one in ours])
    assert [secret for secret in secrets_of(outside) if secret in told] == []


def test_the_status_page_is_published_on_loopback_for_who_has_the_token(compose: Compose) -> None:
    url = f"http://{compose.addresses['web']}/fleet"
    assert urllib3.request("GET", url, redirect=False).headers["Location"] == "/login"
    shown = urllib3.request("GET", url, headers={"Authorization": f"Bearer {WEB_TOKEN}"}).data.decode()
    assert (shown.count("execute@") >= 3, "web@" in shown) == (True, True), "one that was killed is shown as gone"


def test_prometheus_finds_every_container_also_of_a_scaled_service_and_evaluates_every_rule(compose: Compose) -> None:
    one = Prometheus(f"http://{compose.addresses['prometheus']}")
    until(lambda: list(one.targets().values()) == ["up"] * SCRAPED, lambda: f"{SCRAPED} targets to be up, not {one.targets()}")
    until(lambda: {rule["health"] for rule in one.rules().values()} == {"ok"}, "every rule to be evaluated")
    assert one.query("offchainvm_jobs_settled_total")


def test_every_container_with_a_health_check_is_healthy(compose: Compose) -> None:
    def health(one: Container) -> str:
        return str(one.attrs["State"].get("Health", {}).get("Status", "none"))

    expected = {(name, "none" if name in UNCHECKED else "healthy"): count for name, count in SCALE.items()}
    until(lambda: compose.states(health) == expected, "every container to be healthy")


def test_a_job_is_built_from_within_the_compile_container(compose: Compose, outside: dict[str, Any], tmp_path: Path) -> None:
    for name, text in {"Cargo.toml": MANIFEST, "Cargo.lock": LOCKFILE, "src/lib.rs": RUST_ECHO.replace("ROUNDS", "0")}.items():
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    commit = publish_folder(tmp_path / "tree", compose.mirror, owner="tests", name="built")
    client = DevnetClient(outside["url"], outside["keys"])
    request = client.request_execution("https://github.com/tests/built", commit, TARGET, "built here", Limits())
    result = client.result(request.request_id, timeout_seconds=ANSWER_SECONDS)
    client.close()
    assert result.value == "built here", compose("logs", "--tail", "30", "compile")


def test_what_the_page_says_to_run_in_a_container_runs_there_and_finds_nothing_wrong(compose: Compose) -> None:
    newest = json.loads(compose("exec", "-T", "bridge", "offchainvm", "jobs", "list", "--json"))[0]["data_id"]
    with ThreadPoolExecutor() as pool:  # one after the other they take long
        told = list(pool.map(lambda words: compose("exec", "-T", *words.replace("ID", newest).split()), EXECS))
    assert all(told)


def test_the_page_shows_doctor_for_every_role() -> None:
    assert {f"{role} offchainvm doctor --role {role}" for role in ("bridge", "compile", "execute", "resolve")} <= set(EXECS)


def test_asked_to_stop_every_container_ends_by_itself_within_its_grace_period(compose: Compose) -> None:
    compose("stop")
    killed = {one.name for one in compose.containers() if one.attrs["State"]["ExitCode"] == 128 + signal.SIGKILL}
    assert killed == set()


def test_the_image_takes_a_role_a_command_or_a_program_and_says_what_it_does_not_know(images: dict[str, str]) -> None:
    def run(*words: str) -> tuple[int, str]:
        command = ["docker", "run", "--rm", "--network", "none", images["WORKER_IMAGE"], *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, told = run("resolve", "-P", "solo")
    assert (code, "the resolve worker cannot start" in told) == (2, True), told
    code, told = run("bridge")
    assert (code, "API_BASE_URL: is missing" in told) == (2, True), told
    code, told = run()
    assert (code, "no queue can be served here" in told) == (2, True), told
    assert run("celery", "--version")[0] == 0
    code, told = run("executor")
    assert (code, "No such command" in told) == (2, True), told
