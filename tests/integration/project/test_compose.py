"""docker-compose.yml, read by the docker-compose that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROFILES = ("--profile", "monitor", "--profile", "web", "--profile", "observe")


def compose_command() -> list[str]:
    """Compose 1 or 2, whichever this machine has."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    if not plugin:
        pytest.skip("neither docker-compose nor docker compose is here")
    return ["docker", "compose"]


@pytest.mark.parametrize("files", [("docker-compose.yml",), ("docker-compose.yml", "deploy/compose/mirror.yml")])
def test_compose_takes_the_file(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "env").write_text("API_AUTH_TOKEN=t\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ENV_FILE": str(tmp_path / "env"), "SOURCE_MIRROR_DIR": "/srv/mirror"}
    named = [word for file in files for word in ("-f", str(ROOT / file))]
    command = [*compose_command(), *named, "--project-directory", str(tmp_path), *PROFILES, "config", "--services"]
    shown = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert set(shown.stdout.split()) == {
        "redis",
        "bridge",
        "compile",
        "execute",
        "resolve",
        "flower",
        "monitor",
        "web",
        "prometheus",
        "grafana",
    }
