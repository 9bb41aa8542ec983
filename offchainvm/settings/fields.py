"""What a setting is made of: roles, kinds of values, and one row of the table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from offchainvm.authorities import check_file
from offchainvm.models import ACCOUNT_ID
from offchainvm.settings import urls


class Role(str, Enum):
    """What a process does; one process may serve several roles."""

    BRIDGE = "bridge"
    MONITOR = "monitor"
    COMPILE = "compile"
    EXECUTE = "execute"
    RESOLVE = "resolve"
    DASHBOARD = "dashboard"
    WEB = "web"


EVERYONE = tuple(Role)


@dataclass(frozen=True)
class SettingInfo:
    """One row of the table of settings."""

    name: str
    default: str
    unit: str
    roles: tuple[Role, ...]
    required: bool
    secret: bool
    help: str


def setting(
    default: Any,
    help: str,
    *,
    roles: tuple[Role, ...] = EVERYONE,
    unit: str = "",
    required: bool = False,
    may_hold_secret: bool = False,
    **rules: Any,
) -> Any:
    """``may_hold_secret``: plain text in which a password or an API key may stand; kept out of every repr, may come from a file."""
    extra: dict[str, Any] = {"roles": [role.value for role in roles], "unit": unit, "required": required, "secret": may_hold_secret}
    return Field(default, description=help, json_schema_extra=extra, repr=not may_hold_secret, **rules)


def comma_list(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _secret_list(value: Any) -> Any:
    return tuple(SecretStr(part) for part in comma_list(value)) if isinstance(value, str) else value


def _account(value: Any) -> Any:
    if value and not ACCOUNT_ID.fullmatch(str(value)):
        raise ValueError("must be a NEAR account id, such as worker1.testnet")
    return value


def _pattern(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9*?-]+/[A-Za-z0-9._*?-]+", value):
        raise ValueError("must be patterns of owner/name, such as near-examples/*")
    return value


def _sender_pattern(value: str) -> str:
    if not ACCOUNT_ID.fullmatch(value.removeprefix("*.")):
        raise ValueError("must be NEAR accounts, or *. and the account above them, such as alice.near, *.team.near")
    return value


def _network(value: str) -> str:
    if value in {"host", "none"} or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise ValueError(
            "must name a network that is kept apart from this host's (`docker network create NAME`), not host, none or container:ID"
        )
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", value):
        raise ValueError("must be at most 64 letters, digits, dots, dashes and underscores")
    return value


def lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _expand_home(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("this user has no home folder; name an absolute path") from None


Url = Annotated[str, BeforeValidator(urls.base)]
Mirror = Annotated[str, AfterValidator(urls.mirror)]
Index = Annotated[str, AfterValidator(urls.index)]
RedisUrl = Annotated[str, AfterValidator(urls.redis)]
BrokerUrl = Annotated[str, AfterValidator(urls.broker)]
Account = Annotated[str, BeforeValidator(_account)]
Folder = Annotated[Path, AfterValidator(_expand_home)]
Name = Annotated[str, AfterValidator(_name)]
Network = Annotated[str, AfterValidator(_network)]
Certificates = Annotated[Folder, AfterValidator(check_file)]
Urls = Annotated[tuple[Url, ...], BeforeValidator(comma_list)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(comma_list)]
SenderPatterns = Annotated[tuple[Annotated[str, AfterValidator(_sender_pattern)], ...], BeforeValidator(comma_list)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_secret_list)]
