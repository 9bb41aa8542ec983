"""A real Prometheus of one's own, by deploy/prometheus: its rules, and its scrape configuration with other targets and a quicker pace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3
from world import until

from offchainvm.devnet.embedded_redis import free_port
from offchainvm.processes import bound_command

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"
START_SECONDS = 30


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = urllib3.PoolManager(retries=False)

    def ready(self) -> bool:
        try:
            return self._http.request("GET", f"{self._url}/-/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer; an error is one of the test."""
        reply = json.loads(self._http.request("GET", f"{self._url}/api/v1/{path}?{urlencode(parameters)}").data)
        assert reply["status"] == "success", reply
        return reply["data"]

    def query(self, expression: str) -> list[dict[str, str]]:
        """The labels of each series that an expression gives now."""
        return [one["metric"] for one in self.ask("query", query=expression)["result"]]

    def targets(self) -> dict[str, str]:
        """The health of each target, by its address."""
        return {one["labels"]["instance"]: one["health"] for one in self.ask("targets")["activeTargets"]}

    def rules(self) -> dict[str, dict[str, Any]]:
        """Every rule, by its name."""
        return {rule["name"]: rule for group in self.ask("rules")["groups"] for rule in group["rules"]}


def program() -> str:
    """Where it is installed."""
    found = shutil.which("prometheus")
    if found is None:
        assert not os.environ.get("CI"), "CI must have prometheus (.ci/run installs it)"
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    return found


@contextmanager
def running(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes ``targets`` (HOST:PORT) and evaluates each second."""
    command = [program(), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    head, found, _ = (DEPLOYED / "prometheus.yml").read_text().partition("scrape_configs:")
    assert found
    jobs = [{"job_name": "offchainvm", "static_configs": [{"targets": list(targets)}]}]
    (folder / "prometheus.yml").write_text(f"{head.replace('15s', '1s')}scrape_configs: {json.dumps(jobs)}\n")  # JSON is YAML
    shutil.copy(DEPLOYED / "rules.yml", folder)
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(bound_command([*command, f"--web.listen-address={address}"]), cwd=folder, stdout=log, stderr=log)
    try:
        one = Prometheus(f"http://{address}")
        until(lambda: one.ready() or process.poll() is not None, "Prometheus to be ready", seconds=START_SECONDS)
        assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
        yield one
    finally:
        process.terminate()
        process.wait(START_SECONDS)
