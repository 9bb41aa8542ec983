"""What a log line says: one event with its action, in JSON or for people; and that every event of ours has one."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[3] / "offchainvm"
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
# A process of its own: what is set up here is a process' only logging.
PROGRAM = """
import logging, sys, warnings
from offchainvm import logs
logs.configure(level=sys.argv[1], format=sys.argv[2], node="worker-1")
log = logs.get_logger()
with logs.bound(data_id="d1", request_id=7):
    log.info("A job began.", action="begin", detail="two\\nlines")
    logging.getLogger("somebody.else").warning("their %s", "words")
try:
    token = "a secret"
    raise ValueError("broken")
except ValueError:
    log.exception("It broke.", action="break")
log.debug("A detail.", action="look")
logging.getLogger("urllib3").debug("GET /?apiKey=secret")
logging.getLogger("x").log(logs.TRACE, "a trace")
warnings.warn("old ways")
"""


def logged(level: str, format: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, level, format]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def events(level: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(level, "json")]


def test_each_line_of_json_is_an_event_with_its_action_time_and_level_and_the_ids_of_its_job() -> None:
    begin, theirs, broke, warning = events("info")
    job = {"node": "worker-1", "data_id": "d1", "request_id": 7}
    assert {**begin, "timestamp": ""} == {
        "event": "A job began.", "action": "begin", "detail": "two\nlines", "level": "info", "timestamp": "", **job
    }  # fmt: skip
    assert begin["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["level"], job.items() <= theirs.items()) == ("their words", "warning", True)
    assert (broke["action"], broke["level"], "data_id" in broke) == ("break", "error", False)
    assert broke["exception"].endswith("ValueError: broken")
    assert "old ways" in warning["event"]


def test_a_traceback_shows_no_values_of_variables() -> None:
    for format in ("json", "console"):
        text = "\n".join(logged("trace", format))
        assert "ValueError: broken" in text
        assert "a secret" not in text.replace('token = "a secret"', "")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("error", {"It broke."}),
        ("warn", {"It broke.", "their words"}),
        ("info", {"It broke.", "their words", "A job began."}),
        ("debug", {"It broke.", "their words", "A job began.", "A detail."}),
        ("trace", {"It broke.", "their words", "A job began.", "A detail.", "a trace"}),
    ],
)
def test_a_level_shows_itself_and_what_is_graver_and_never_the_addresses_that_are_asked(level: str, shown: set[str]) -> None:
    assert {event["event"] for event in events(level) if "old ways" not in event["event"]} == shown


def test_every_event_of_ours_has_one_action() -> None:
    calls = [
        (file.relative_to(PACKAGE).as_posix(), node.lineno, [keyword.arg for keyword in node.keywords])
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
    ]
    assert len(calls) > 100
    assert [(file, line) for file, line, names in calls if names.count("action") != 1] == []
