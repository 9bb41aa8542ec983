"""Writes docs/settings.md from ``offchainvm.settings``: ``make docs``. A test proves that the page is in step."""

from __future__ import annotations

import sys
from pathlib import Path

from offchainvm.settings import Role, SettingInfo, setting_table

PAGE = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

<!-- Written by docs/settings_page.py (`make docs`): do not edit by hand. -->

For operators: every setting, with its default, its unit and the roles that read it. [deploy.md](deploy.md) shows where to put them.

Each setting is an environment variable. A process also reads a file `.env` in its working folder; the environment wins over it.
`OFFCHAINVM_ENV_FILE` names another file, which must then exist; if it is empty, no file is read. A process reads only the settings of its
roles, checks them all at start, and names every problem at once with its remedy.

A setting marked *secret* never appears in a log, a repr or a task argument. It can come from a file: `NAME_FILE=/path` instead of
`NAME=value`. The file wins if the value is still a placeholder.

| name | default | unit | roles | required | |
|---|---|---|---|---|---|
"""

ROLES = """
## Roles

| role | process | needs at least |
|---|---|---|
"""

PROCESSES = {
    Role.BRIDGE: "`offchainvm bridge`",
    Role.MONITOR: "`offchainvm monitor`, or inside the bridge with ENABLE_EVENT_MONITOR=true",
    Role.COMPILE: "`celery -A offchainvm worker -Q compile`",
    Role.EXECUTE: "`celery -A offchainvm worker -Q execute`",
    Role.RESOLVE: "`celery -A offchainvm worker -Q resolve`",
    Role.DASHBOARD: "`celery -A offchainvm flower`",
    Role.WEB: "`offchainvm web`",
}


def render() -> str:
    """The whole page."""
    rows = setting_table()
    return HEAD + "".join(map(_line, rows)) + ROLES + "".join(_role_line(role, rows) for role in Role)


def _line(row: SettingInfo) -> str:
    roles = "all" if len(row.roles) == len(Role) else ", ".join(role.value for role in row.roles)
    default = f"`{row.default}`" if row.default else ""
    help = row.help.replace("|", "\\|") + (" *Secret.*" if row.secret else "")
    return f"| `{row.name}` | {default} | {row.unit} | {roles} | {'yes' if row.required else ''} | {help} |\n"


def _role_line(role: Role, rows: list[SettingInfo]) -> str:
    needed = ", ".join(f"`{row.name}`" for row in rows if row.required and role in row.roles)
    return f"| {role.value} | {PROCESSES[role]} | {needed or 'nothing'} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
