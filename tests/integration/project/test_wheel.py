"""What is installed is what is in the repository: the package from its wheel, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of packages that the wheel becomes."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and not os.environ.get("CI"):
        pytest.skip(f"no wheel can be built here (its build back-end is fetched): {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "packages")
    return folder / "packages"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python program that finds the wheel's package first; its dependencies are this environment's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(installed),
        "OFFCHAINVM_ENV_FILE": "",
        "TASK_EVENTS": "true",
    }
    return subprocess.run([sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    here = {file.relative_to(ROOT) for file in (ROOT / "offchainvm").rglob("*") if file.is_file() and file.suffix != ".pyc"}
    there = {file.relative_to(installed) for file in installed.rglob("*") if file.is_file()}
    assert here | {Path("celeryconfig.py")} <= there
    assert {file.suffix for file in here} >= {".py", ".lua", ".sh"}
    assert {file.parts[0] for file in there if ".dist-info" not in file.parts[0]} == {"offchainvm", "celeryconfig.py"}


def test_celery_finds_the_application_and_its_own_configuration(installed: Path, tmp_path: Path) -> None:
    # Celery puts the working folder on the path: what lies there by this name is a stranger's.
    (tmp_path / "celeryconfig.py").write_text("raise SystemExit('a stranger was imported')\n")
    place = run(installed, tmp_path, "-c", "import offchainvm.app as app; print(app.__file__, app.CONFIG_FILE)")
    assert place.stdout.split() == [str(installed / "offchainvm" / "app.py"), str(installed / "celeryconfig.py")], place.stderr
    report = run(installed, tmp_path, "-m", "celery", "-A", "offchainvm", "report")
    assert report.returncode == 0, report.stderr
    for line in ("worker_send_task_events: True", "task_acks_late: True", "'visibility_timeout': 30"):
        assert line in report.stdout, line


def test_scripts_and_programs_are_found(installed: Path, tmp_path: Path) -> None:
    program = "import redis; from offchainvm.jobs.store import JobStore; JobStore(redis.Redis())"
    assert run(installed, tmp_path, "-c", program).stderr == ""
    assert run(installed, tmp_path, "-m", "offchainvm", "--version").stdout.strip()


def test_a_command_that_needs_the_repository_says_so(installed: Path, tmp_path: Path) -> None:
    demo = run(installed, tmp_path, "-m", "offchainvm", "demo", "--prebuilt")
    assert (demo.returncode, "Run this from a checkout." in demo.stderr) == (1, True)
