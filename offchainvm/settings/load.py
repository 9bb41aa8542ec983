"""Reads the settings of a process: the environment, ``.env`` and the files that they name, and nothing its roles do not need."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from offchainvm.errors import SettingsError
from offchainvm.settings.fields import Role, SettingInfo, comma_list
from offchainvm.settings.table import Settings, setting_table

_ENV_FILE = "OFFCHAINVM_ENV_FILE"
_PLACEHOLDER = re.compile(r"^(ed25519:)?your[_-].*(here|key|token)$|change[_-]?me|^<.+>$|\.\.\.$", re.IGNORECASE)
_OPERATOR_KEY = re.compile(r"ed25519:[1-9A-HJ-NP-Za-km-z]{43,90}")
# `docker run --env-file` and systemd keep the comment that stands behind a value; no value of ours has " #" in it.
_TRAILING_COMMENT = re.compile(r"(^|\s+)#.*$")


def load(roles: Iterable[Role], *, environ: Mapping[str, str] | None = None, env_file: Path | None = None, **given: Any) -> Settings:
    """The settings of a process that serves ``roles``.

    Args:
        environ: the environment; by default this process's own, with ``.env`` of the working folder or the file that
            OFFCHAINVM_ENV_FILE names.
        env_file: a file of further variables, weaker than ``environ``, which it comes with.
        given: values that overrule both, by field name.

    Raises:
        SettingsError: with every problem at once, each with its remedy.
    """
    wanted = frozenset(roles)
    rows = [row for row in setting_table() if wanted.intersection(row.roles)]
    return _settings(rows, _layers(environ, env_file), given, complete=True)


def load_common() -> Settings:
    """What every process has, whatever its roles: where Redis and the broker are, its name, its logging.

    Raises:
        SettingsError: as ``load``.
    """
    # No role needs less.
    return load([Role.DASHBOARD])


def load_only(names: Iterable[str], *, environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """The settings ``names`` (field names) where they are given, the rest at their defaults: for tools that serve no role.

    Raises:
        SettingsError: a value does not hold.
    """
    wanted = frozenset(name.upper() for name in names)
    rows = [row for row in setting_table() if row.name in wanted]
    return _settings(rows, _layers(environ, env_file), {}, complete=False)


def environment_of(roles: Iterable[Role]) -> dict[str, str]:
    """The variables of this process's environment that ``roles`` read, for a child that serves them; others stay out of its reach."""
    wanted = frozenset(roles)
    rows = [row for row in setting_table() if wanted.intersection(row.roles)]
    names = {_ENV_FILE, *(row.name for row in rows), *(f"{row.name}_FILE" for row in rows if row.secret)}
    return {name: value for name, value in os.environ.items() if name in names}


def _layers(environ: Mapping[str, str] | None, env_file: Path | None) -> tuple[Mapping[str, str], ...]:
    if environ is None:
        return os.environ, _own_file()
    return environ, _variables_if_there(env_file) if env_file else {}


def _own_file() -> dict[str, str]:
    named = os.environ.get(_ENV_FILE)
    if named is None:
        return _variables_if_there(Path(".env"))
    return _variables_of(Path(named)) if named else {}


def _variables_if_there(file: Path) -> dict[str, str]:
    # A virtual environment may be called .env.
    there = os.path.isfile(file)  # noqa: PTH113 -- pathlib raises where the folder may not be entered
    return _variables_of(file) if there else {}


def _variables_of(file: Path) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError([f"{file}: is not UTF-8 text. Save it as UTF-8."]) from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SettingsError([f"{_ENV_FILE}: {file}: {error.strerror}. Name a file of settings, or none (empty)."]) from None
    except OSError as error:
        raise SettingsError([f"{file}: cannot be read ({error.strerror}). Let this user read it."]) from None
    # Without interpolation: a `$` in a secret is a `$`, and this process's environment leaks into nothing.
    return {key: value or "" for key, value in dotenv_values(stream=StringIO(text), interpolate=False).items()}


def _settings(rows: list[SettingInfo], layers: tuple[Mapping[str, str], ...], given: Mapping[str, Any], *, complete: bool) -> Settings:
    values, problems = _read(rows, layers)
    values.update(given)
    unread = {problem.partition("_FILE:")[0] for problem in problems}
    problems += [problem for row in rows if row.name not in unread for problem in _shape_problems(row, values, complete=complete)]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += [_problem(item) for item in error.errors(include_url=False, include_input=False)]
    else:
        problems += _above_our_own(settings, {row.name for row in rows})
    if problems:
        raise SettingsError(problems)
    return settings


def _read(rows: list[SettingInfo], layers: tuple[Mapping[str, str], ...]) -> tuple[dict[str, Any], list[str]]:
    """The texts by field name, and what could not be read; an earlier layer is stronger, a ``NAME_FILE`` of it included."""
    values, problems = dict[str, Any](), list[str]()
    for row in rows:
        text, problem = _text_or_problem(row, layers)
        if problem:
            problems.append(problem)
        elif text:
            values[row.name.lower()] = text
    return values, problems


def _text_or_problem(row: SettingInfo, layers: tuple[Mapping[str, str], ...]) -> tuple[str, str]:
    try:
        return next((text for layer in layers if (text := _text_of(row, layer))), ""), ""
    except UnicodeDecodeError:
        return "", f"{row.name}_FILE: is not text. Name a file that holds the value and nothing else."
    except (OSError, RuntimeError) as error:
        return "", f"{row.name}_FILE: cannot be read ({getattr(error, 'strerror', None) or error}). Name a readable file."


def _text_of(row: SettingInfo, variables: Mapping[str, str]) -> str:
    text = _TRAILING_COMMENT.sub("", variables.get(row.name, "")).strip()
    path = variables.get(f"{row.name}_FILE", "").strip() if row.secret else ""
    if not path or (text and not _PLACEHOLDER.search(text)):
        return text
    return Path(path).expanduser().read_text(encoding="utf-8").strip()


def _shape_problems(row: SettingInfo, values: Mapping[str, Any], *, complete: bool) -> list[str]:
    value = values.get(row.name.lower())
    if not value and not complete:
        return []
    if not value:
        how = f"{row.name} or {row.name}_FILE" if row.secret else row.name
        return [f"{row.name}: is missing. Set {how} in the environment or in .env: {row.help}"] if row.required else []
    if (row.required or row.secret) and isinstance(value, str) and _PLACEHOLDER.search(value):
        return [f"{row.name}: still holds the placeholder of .env.example. Put the real value there."]
    if row.name.startswith("OPERATOR_PRIVATE_KEY") and isinstance(value, str) and not all(map(_OPERATOR_KEY.fullmatch, comma_list(value))):
        return [f"{row.name}: is no NEAR key. It reads ed25519: and some 88 base58 characters, as near-cli exports it."]
    return []


def _above_our_own(settings: Settings, read: set[str]) -> list[str]:
    """A default above the clamp would be cut in silence: it is a mistake of whoever configured it."""
    problems = []
    for most in ("MAX_INSTRUCTIONS", "MAX_MEMORY_MB", "MAX_EXECUTION_SECONDS"):
        name = f"DEFAULT_{most}"
        value, top = getattr(settings, name.lower()), getattr(settings, most.lower())
        if {name, most} <= read and value > top:
            problems.append(f"{name}: {value} is above {most} ({top}). Raise {most} too.")
    return problems


def _problem(item: Any) -> str:
    name = str(item["loc"][0]).upper() if item["loc"] else "settings"
    rows = {row.name: row for row in setting_table()}
    help = rows[name].help if name in rows else ""
    return f"{name}: {item['msg'].removeprefix('Value error, ')}. {help}"
