"""`.env.example` says what the table of settings does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from offchainvm.errors import SettingsError
from offchainvm.settings import Role, load, setting_table

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / ".env.example"
COMPOSE = ROOT / "docker-compose.yml"
LINE = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
FOR_COMPOSE = "# ---- docker-compose alone"

# Why these differ from the default is said in the file itself.
OTHER_THAN_DEFAULT = {"DOCKER_IMAGE"}


def example() -> list[tuple[bool, str, str]]:
    settings, _, _ = EXAMPLE.read_text().partition(FOR_COMPOSE)
    return [(mark == "", name, value) for mark, name, value in LINE.findall(settings)]


def test_the_example_names_every_setting_once_and_no_other() -> None:
    names = [name for _, name, _ in example()]
    assert sorted(names) == sorted(row.name for row in setting_table())


def test_the_example_sets_what_is_required_and_shows_the_other_defaults() -> None:
    rows = {row.name: row for row in setting_table()}
    for active, name, value in example():
        if name in OTHER_THAN_DEFAULT:
            continue
        assert active == rows[name].required, name
        if not active:
            assert value == rows[name].default, name


def test_what_the_example_shows_for_docker_compose_alone_is_what_that_reads() -> None:
    shown = {name: (mark, value) for mark, name, value in LINE.findall(EXAMPLE.read_text().partition(FOR_COMPOSE)[2])}
    read = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE.read_text()))
    assert set(shown) <= {*read, "COMPOSE_PROFILES"}
    assert {mark for mark, _ in shown.values()} == {"#"}
    counts = {name: value for name, value in read.items() if name.endswith("_COUNT")}
    assert {name: value for name, (_, value) in shown.items() if name in counts} == counts


def test_the_example_has_no_comment_behind_a_value_and_no_quotes() -> None:
    assert not [value for _, _, value in example() if "#" in value or '"' in value or "'" in value]


def test_the_example_left_as_it_is_names_its_placeholders() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Role, environ={}, env_file=EXAMPLE)
    assert [line.split(":")[0] for line in caught.value.problems] == ["API_AUTH_TOKEN", "OPERATOR_PRIVATE_KEY"]


def test_the_example_filled_in_holds(operator_key: str) -> None:
    settings = load(Role, environ={"API_AUTH_TOKEN": "t0ken", "OPERATOR_PRIVATE_KEY": operator_key}, env_file=EXAMPLE)
    assert settings.docker_image != "rust:1.75"


def test_every_setting_has_a_sentence_and_a_role() -> None:
    for row in setting_table():
        assert row.help.endswith("."), row.name
        assert row.roles, row.name
