"""The settings: the only reader of the environment and of ``.env``.

Each field of ``Settings`` is one variable, its name in capitals. A process loads them for the roles that it
serves: what those roles do not need is neither required nor read, so a secret stays out of processes that have
no use for it. Every secret can also come from a file named by ``NAME_FILE``.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from offchainvm.errors import SettingsError
from offchainvm.models import ResourceLimits


class Role(str, Enum):
    """What a process does; one process may serve several roles."""

    BRIDGE = "bridge"
    MONITOR = "monitor"
    COMPILE = "compile"
    EXECUTE = "execute"
    RESOLVE = "resolve"
    DASHBOARD = "dashboard"


B, M, C, E, R, D = Role
EVERYONE = tuple(Role)
_PLACEHOLDER = re.compile(r"^(ed25519:)?your[_-].*(here|key|token)$|change[_-]?me|^<.+>$|\.\.\.$", re.IGNORECASE)
_OPERATOR_KEY = re.compile(r"ed25519:[1-9A-HJ-NP-Za-km-z]{43,90}")
_ACCOUNT = re.compile(r"(?=.{2,64}$)(([a-z\d]+[-_])*[a-z\d]+\.)*([a-z\d]+[-_])*[a-z\d]+")
# `docker run --env-file` and systemd keep the comment that stands behind a value; no value of ours has " #" in it.
_TRAILING_COMMENT = re.compile(r"(^|\s+)#.*$")


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


def _setting(
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


def _comma_list(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _secret_list(value: Any) -> Any:
    return tuple(SecretStr(part) for part in _comma_list(value)) if isinstance(value, str) else value


def _base_url(value: Any) -> Any:
    if isinstance(value, str):
        value = value.strip().rstrip("/")
        if not re.match(r"https?://[^/\s]+", value):
            raise ValueError("must start with http:// or https:// and name a host")
    return value


def _account(value: Any) -> Any:
    if value and not _ACCOUNT.fullmatch(str(value)):
        raise ValueError("must be a NEAR account id, such as worker1.testnet")
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _expand_home(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("this user has no home folder; name an absolute path") from None


Url = Annotated[str, BeforeValidator(_base_url)]
Account = Annotated[str, BeforeValidator(_account)]
Folder = Annotated[Path, AfterValidator(_expand_home)]
Urls = Annotated[tuple[Url, ...], BeforeValidator(_comma_list)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_secret_list)]


class Settings(BaseModel):
    """All settings, validated. Secrets never appear in a repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # The six that the user must give.
    api_base_url: Url = _setting("", "Base URL of the Coordinator.", roles=(B, M, C, E), required=True)
    api_auth_token: SecretStr = _setting(SecretStr(""), "Bearer token of the Coordinator.", roles=(B, M, C, E), required=True)
    near_rpc_url: Urls = _setting(
        (), "NEAR RPC endpoints, comma-separated, tried in order.", roles=(B, E, R), required=True, may_hold_secret=True
    )
    offchainvm_contract_id: Account = _setting("", "Account of the OffchainVM contract.", roles=(B, M, E, R), required=True)
    operator_account_id: Account = _setting("", "Account that the contract knows as its operator.", roles=(B, R), required=True)
    operator_private_key: SecretStr = _setting(
        SecretStr(""), "The operator's key, `ed25519:…`. Only the resolve worker needs it.", roles=(R,), required=True
    )
    operator_private_keys: Secrets = _setting((), "More keys of the operator, comma-separated: each adds resolve throughput.", roles=(R,))

    worker_id: str = _setting("", "Name of this worker; empty = a random one.", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "Redis or Valkey that keeps the jobs (AOF on, noeviction).",
        pattern=r"^(rediss?|unix|sentinel)://",
        may_hold_secret=True,
    )
    broker_url: str = _setting("", "Celery's broker; empty = REDIS_URL.", may_hold_secret=True)
    state_dir: Folder = _setting(
        Path("~/.local/state/offchainvm"), "Folder of journals, caches and build logs on this host.", validate_default=True
    )
    log_level: Annotated[Literal["error", "warn", "info", "debug", "trace"], BeforeValidator(_lower)] = _setting(
        "info", "How much is logged: error, warn, info, debug or trace."
    )
    log_format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = _setting(
        "console", "How a log line looks: console or json."
    )
    metrics_port: int = _setting(0, "Port of the health and metrics server of this process; 0 = none.", ge=0, le=65535)
    task_events: bool = _setting(False, "Send Celery's task events: Flower wants them, they cost a quarter of the throughput.")
    job_retention_hours: int = _setting(72, "How long the record of a settled job is kept.", unit="hours", roles=(B,), ge=1, le=24 * 365)
    ca_bundle: Folder | None = _setting(
        None, "File of further certificate authorities for HTTPS of this process and of the build's fetch phases."
    )

    poll_timeout_seconds: int = _setting(
        60, "Length of one long poll; the Coordinator is asked for 120 at most.", unit="seconds", roles=(B,), ge=1, le=300
    )
    poll_concurrency: int = _setting(4, "Long polls held at once.", roles=(B,), ge=1, le=64)
    queue_high_water: int = _setting(
        1000, "Jobs waiting for a worker or a signature, above which polling stops.", unit="jobs", roles=(B,), ge=1
    )

    enable_event_monitor: bool = _setting(False, "Run the event monitor inside the bridge.", roles=(B,))
    neardata_api_url: Url = _setting(
        "https://testnet.neardata.xyz/v0/block", "Block service that the event monitor reads.", roles=(B, M, E)
    )
    neardata_api_key: SecretStr = _setting(SecretStr(""), "API key of the block service.", roles=(B, M, E))
    fastnear_api_url: str = _setting("", "Source of the newest height; empty = chosen after NEARDATA_API_URL.", roles=(B, M))
    start_block_height: int = _setting(
        0, "First block of the event monitor; 0 = its cursor, else the latest final block.", roles=(B, M), ge=0
    )
    scan_interval_seconds: float = _setting(
        1.0, "Pause of the event monitor at the head of the chain.", unit="seconds", roles=(B, M), gt=0, le=60, allow_inf_nan=False
    )
    event_standard: str = _setting("near-offshore", "Name of the event standard in the contract's logs.", roles=(B, M, E))

    docker_image: str = _setting("rust:1.75", "Base image from which the builder image is made.", roles=(C,))
    builder_image: str = _setting("offchainvm-builder", "Image that builds run in; `make builder-image` makes it.", roles=(C,))
    docker_runtime: str = _setting("", "Container runtime of builds, e.g. runsc; empty = the engine's default.", roles=(C,))
    compile_timeout_seconds: int = _setting(300, "Longest build.", unit="seconds", roles=(B, C), ge=1, le=3600)
    compile_memory_limit_mb: int = _setting(2048, "Memory of a build.", unit="MiB", roles=(C,), ge=512)
    compile_cpu_limit: float = _setting(2.0, "Processors of a build.", unit="CPUs", roles=(C,), gt=0, allow_inf_nan=False)
    build_disk_mb: int = _setting(2048, "Disk (in memory) of a build's target folder.", unit="MiB", roles=(C,), ge=64)
    source_mirror_url: str = _setting(
        "",
        "Base that replaces https://github.com/ when cloning; `file://DIR` = bare repositories owner/name.git.",
        roles=(B, C),
        pattern=r"^$|^(https?|file)://",
        may_hold_secret=True,
    )
    require_lockfile: bool = _setting(False, "Refuse repositories without a Cargo.lock.", roles=(C,))
    verify_builds: Literal["off", "warn", "require"] = _setting("off", "Build twice and compare: off, warn or require.", roles=(C,))

    default_max_instructions: int = _setting(
        10_000_000_000, "Instructions of a request that names none.", unit="instructions", roles=(B, M, E), ge=1
    )
    default_max_memory_mb: int = _setting(128, "Memory of a request that names none.", unit="MiB", roles=(B, M, E), ge=1, le=4096)
    default_max_execution_seconds: int = _setting(60, "Time of a request that names none.", unit="seconds", roles=(B, M, E), ge=1)
    max_instructions: int = _setting(
        100_000_000_000, "Most instructions that any request gets.", unit="instructions", roles=(B, M, E), ge=1
    )
    max_memory_mb: int = _setting(512, "Most memory that any request gets.", unit="MiB", roles=(B, M, E), ge=1, le=4096)
    max_execution_seconds: int = _setting(120, "Longest time that any request gets.", unit="seconds", roles=(B, M, C, E), ge=1, le=3600)
    wasm_runtime: Literal["wasmtime", "wasmer"] = _setting("wasmtime", "Engine of executions: wasmtime or wasmer.", roles=(E,))
    wasmer_python: Folder | None = _setting(None, "A Python 3.10 with wasmer, where this one has none.", roles=(E,))
    metering: Literal["injected", "native"] = _setting("native", "How instructions are counted: native or injected.", roles=(E,))
    wasm_cache_max_mb: int = _setting(1024, "Disk cache of modules and of their native code.", unit="MiB", roles=(E,), ge=16)

    resolves_per_transaction: int = _setting(10, "Resolves batched in one transaction of a full-access key.", roles=(R,), ge=1, le=100)
    key_window: int = _setting(8, "Transactions of one key in flight; 1 = the careful mode.", roles=(R,), ge=1, le=64)
    resolve_gas_tgas: int = _setting(30, "Gas attached to one resolve.", unit="TGas", roles=(R,), ge=5, le=300)

    @property
    def effective_broker_url(self) -> str:
        return self.broker_url or self.redis_url

    @property
    def node_name(self) -> str:
        """WORKER_ID, or a random name that stays the same for this process."""
        return self.worker_id or _RANDOM_NAME

    @property
    def operator_keys(self) -> tuple[SecretStr, ...]:
        """All keys of the operator, each once, the single one first."""
        keys = {key.get_secret_value(): key for key in (self.operator_private_key, *self.operator_private_keys)}
        return tuple(key for value, key in keys.items() if value)

    @property
    def limit_defaults(self) -> ResourceLimits:
        """What a request gets where it names no limit of its own."""
        return ResourceLimits(
            max_instructions=self.default_max_instructions,
            max_memory_mb=self.default_max_memory_mb,
            max_execution_seconds=self.default_max_execution_seconds,
        )


_RANDOM_NAME = str(uuid.uuid4())


def setting_table() -> list[SettingInfo]:
    """Every setting in the order of ``Settings``: the source of the documentation and of ``.env.example``."""
    return [_row(name, field) for name, field in Settings.model_fields.items()]


def load(roles: Iterable[Role], *, environ: Mapping[str, str] | None = None, env_file: Path | None = None, **given: Any) -> Settings:
    """The settings of a process that serves ``roles``.

    Args:
        environ: the environment; by default this process's own.
        env_file: a file of further variables, weaker than the environment; by default ``.env`` in the working
            folder when ``environ`` is not given.
        given: values that overrule both, by field name.

    Raises:
        SettingsError: with every problem at once, each with its remedy.
    """
    wanted = frozenset(roles)
    rows = [row for row in setting_table() if wanted.intersection(row.roles)]
    return _settings(rows, _layers(environ, env_file), given, complete=True)


def load_only(names: Iterable[str], *, environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """The settings ``names`` (field names) where they are given, the rest at their defaults: for tools that serve no role.

    Raises:
        SettingsError: a value does not hold.
    """
    wanted = frozenset(name.upper() for name in names)
    rows = [row for row in setting_table() if row.name in wanted]
    return _settings(rows, _layers(environ, env_file), {}, complete=False)


def _layers(environ: Mapping[str, str] | None, env_file: Path | None) -> tuple[Mapping[str, str], ...]:
    if environ is None:
        environ, env_file = os.environ, env_file or Path(os.environ.get("OFFCHAINVM_ENV_FILE", ".env"))
    # Without interpolation: a `$` in a secret is a `$`, and this process's environment leaks into nothing.
    from_file = dotenv_values(env_file, interpolate=False) if env_file else {}
    return environ, {key: value or "" for key, value in from_file.items()}


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


def _row(name: str, field: FieldInfo) -> SettingInfo:
    extra: Any = field.json_schema_extra
    secret = extra["secret"] or "Secret" in str(field.annotation) or "Secret" in str(field.metadata)
    return SettingInfo(
        name=name.upper(),
        default="" if isinstance(field.default, SecretStr) else _default_text(field.default),
        unit=extra["unit"],
        roles=tuple(Role(role) for role in extra["roles"]),
        required=extra["required"],
        secret=secret,
        help=field.description or "",
    )


def _default_text(default: Any) -> str:
    if default in (None, ()):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _text_of(row: SettingInfo, variables: Mapping[str, str]) -> str:
    text = _TRAILING_COMMENT.sub("", variables.get(row.name, "")).strip()
    path = variables.get(f"{row.name}_FILE", "").strip() if row.secret else ""
    return text if text or not path else Path(path).expanduser().read_text(encoding="utf-8").strip()


def _shape_problems(row: SettingInfo, values: Mapping[str, Any], *, complete: bool) -> list[str]:
    value = values.get(row.name.lower())
    if not value and not complete:
        return []
    if not value:
        how = f"{row.name} or {row.name}_FILE" if row.secret else row.name
        return [f"{row.name}: is missing. Set {how} in the environment or in .env: {row.help}"] if row.required else []
    if (row.required or row.secret) and isinstance(value, str) and _PLACEHOLDER.search(value):
        return [f"{row.name}: still holds the placeholder of .env.example. Put the real value there."]
    if row.name.startswith("OPERATOR_PRIVATE_KEY") and isinstance(value, str) and not all(map(_OPERATOR_KEY.fullmatch, _comma_list(value))):
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
