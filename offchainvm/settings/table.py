"""The table: each field of ``Settings`` is one variable, its name in capitals."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr
from pydantic.fields import FieldInfo

from offchainvm.models import ResourceLimits
from offchainvm.settings.fields import (
    Account,
    BrokerUrl,
    Certificates,
    Folder,
    Index,
    Mirror,
    Name,
    Network,
    Patterns,
    RedisUrl,
    Role,
    Secrets,
    SenderPatterns,
    SettingInfo,
    Url,
    Urls,
    lower,
    setting,
)

B, M, C, E, R, D, W = Role


class Settings(BaseModel):
    """All settings, validated. Secrets never appear in a repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # The six that the user must give.
    api_base_url: Url = setting("", "Base URL of the Coordinator.", roles=(B, M, C, E), required=True)
    api_auth_token: SecretStr = setting(SecretStr(""), "Bearer token of the Coordinator.", roles=(B, M, C, E), required=True)
    near_rpc_url: Urls = setting(
        (), "NEAR RPC endpoints of one network, comma-separated, tried in order.", roles=(B, E, R), required=True, may_hold_secret=True
    )
    offchainvm_contract_id: Account = setting("", "Account of the OffchainVM contract.", roles=(B, M, E, R), required=True)
    operator_account_id: Account = setting("", "Account that the contract accepts as its operator.", roles=(B, R), required=True)
    operator_private_key: SecretStr = setting(
        SecretStr(""), "The operator's key, `ed25519:…`. Only the resolve worker needs it.", roles=(R,), required=True
    )
    operator_private_keys: Secrets = setting((), "More operator keys, comma-separated; each adds resolve throughput.", roles=(R,))

    worker_id: Name = setting("", "Name of this worker; empty = a random one.")
    redis_url: RedisUrl = setting(
        "redis://127.0.0.1:6379/0",
        "Redis or Valkey that keeps the jobs (AOF on, noeviction), or its Sentinels: `sentinel://HOST:PORT,HOST:PORT/0?service=NAME`.",
        may_hold_secret=True,
    )
    broker_url: BrokerUrl = setting(
        "",
        "Celery's broker, Redis or RabbitMQ (`amqp://…`); empty = REDIS_URL.",
        may_hold_secret=True,
    )
    state_dir: Folder = setting(
        Path("~/.local/state/offchainvm"), "Folder for journals, caches and build logs on this host.", validate_default=True
    )
    log_level: Annotated[Literal["error", "warn", "info", "debug", "trace"], BeforeValidator(lower)] = setting(
        "info", "How much is logged: error, warn, info, debug or trace."
    )
    log_format: Annotated[Literal["console", "json"], BeforeValidator(lower)] = setting("console", "Format of log lines: console or json.")
    metrics_port: int = setting(0, "Port of the health and metrics server of this process; 0 = none.", ge=0, le=65535)
    task_events: bool = setting(False, "Send Celery's task events. Flower needs them; they cost a quarter of the throughput.")
    job_retention_hours: int = setting(72, "How long the record of a settled job is kept.", unit="hours", roles=(B, M), ge=1, le=24 * 365)
    ca_bundle: Certificates | None = setting(
        None, "File (PEM) of certificate authorities that this process and the fetches of builds trust besides the host's."
    )

    poll_timeout_seconds: int = setting(
        60, "Length of one long poll; the Coordinator is never asked for more than 120.", unit="seconds", roles=(B,), ge=1, le=300
    )
    poll_concurrency: int = setting(4, "Number of long polls held at once.", roles=(B,), ge=1, le=64)
    queue_high_water: int = setting(
        1000, "Polling stops while more jobs than this wait for a worker or a signature.", unit="jobs", roles=(B,), ge=1
    )

    fair_share: bool = setting(
        True,
        "Let jobs take turns by sender and repository, so that none starves the others; false = first come, first served.",
        roles=(B, M),
    )
    allow_repositories: Patterns = setting(
        (), "Only run code of these repositories, `owner/name` with `*` and `?`, comma-separated; empty = all.", roles=(B, M)
    )
    deny_repositories: Patterns = setting((), "Never run code of these repositories, even if allowed; same patterns.", roles=(B, M))
    allow_senders: SenderPatterns = setting(
        (), "Only run requests of these accounts, `alice.near` or `*.team.near`, comma-separated; empty = all.", roles=(B, M)
    )
    deny_senders: SenderPatterns = setting((), "Never run requests of these accounts, even if allowed; same patterns.", roles=(B, M))

    enable_event_monitor: bool = setting(False, "Run the event monitor inside the bridge.", roles=(B,))
    neardata_api_url: Url = setting("https://testnet.neardata.xyz/v0/block", "Block service that the event monitor reads.", roles=(B, M, E))
    neardata_api_key: SecretStr = setting(SecretStr(""), "API key of the block service.", roles=(B, M, E))
    neardata_requests_per_minute: int = setting(
        180, "Most requests that one process sends to the block service; the default is the free tier.", unit="requests",
        roles=(B, M, E), ge=1, le=600_000,
    )  # fmt: skip
    fastnear_api_url: Url = setting("", "Source of the newest height; empty = derived from NEARDATA_API_URL.", roles=(B, M))
    start_block_height: int = setting(
        0, "First block of the event monitor; 0 = its cursor, else the latest final block.", roles=(B, M), ge=0
    )
    scan_interval_seconds: float = setting(
        1.0, "How long the event monitor pauses at the head of the chain.", unit="seconds", roles=(B, M), gt=0, le=60, allow_inf_nan=False
    )
    event_standard: str = setting("near-offshore", "Name of the event standard in the contract's logs.", roles=(B, M, E))

    docker_image: str = setting("rust:1.75", "Base image from which the builder image is made.", roles=(C,))
    builder_image: str = setting("offchainvm-builder", "Image in which builds run; `make builder-image` makes it.", roles=(C,))
    docker_runtime: str = setting("", "Container runtime of builds, e.g. runsc; empty = the engine's default.", roles=(C,))
    compile_timeout_seconds: int = setting(300, "Time limit of a build.", unit="seconds", roles=(B, C), ge=1, le=3600)
    compile_memory_limit_mb: int = setting(2048, "Memory limit of a build.", unit="MiB", roles=(C,), ge=512)
    compile_cpu_limit: float = setting(2.0, "Processor limit of a build.", unit="CPUs", roles=(C,), gt=0, allow_inf_nan=False)
    build_disk_mb: int = setting(2048, "Size limit of a build's target folder, which is in memory.", unit="MiB", roles=(C,), ge=64)
    source_mirror_url: Mirror = setting(
        "",
        "Base URL that replaces https://github.com/ when cloning; `file://DIR` = a folder of bare repositories owner/name.git.",
        roles=(B, C),
        may_hold_secret=True,
    )
    crates_mirror_url: Index = setting(
        "",
        "Sparse index of a mirror that replaces the Rust package registry, e.g. `https://mirror.example/index/`; empty = none.",
        roles=(C,),
        may_hold_secret=True,
    )
    crate_cache_max_mb: int = setting(
        1024, "Size of the disk cache of crate files, which are verified at each use; 0 = no cache.", unit="MiB", roles=(C,), ge=0
    )
    build_network: Network = setting(
        "bridge",
        "The container engine's network through which sources and crates are fetched, e.g. a filtered one; the build itself has none.",
        roles=(C,),
    )
    require_lockfile: bool = setting(False, "Refuse repositories without a Cargo.lock.", roles=(C,))
    verify_builds: Literal["off", "warn", "require"] = setting("off", "Build twice and compare: off, warn or require.", roles=(C,))

    default_max_instructions: int = setting(
        10_000_000_000, "Limit of instructions for a request that names none.", unit="instructions", roles=(B, M, E), ge=1
    )
    default_max_memory_mb: int = setting(128, "Memory limit for a request that names none.", unit="MiB", roles=(B, M, E), ge=1, le=4096)
    default_max_execution_seconds: int = setting(60, "Time limit for a request that names none.", unit="seconds", roles=(B, M, E), ge=1)
    max_instructions: int = setting(
        100_000_000_000, "Most instructions that any request may use.", unit="instructions", roles=(B, M, E), ge=1, le=(1 << 63) - 1
    )
    max_memory_mb: int = setting(512, "Most memory that any request may use.", unit="MiB", roles=(B, M, E), ge=1, le=4096)
    max_execution_seconds: int = setting(120, "Longest time that any request may run.", unit="seconds", roles=(B, M, C, E), ge=1, le=3600)
    wasm_runtime: Literal["wasmtime", "wasmer"] = setting("wasmtime", "Engine that runs modules: wasmtime or wasmer.", roles=(E,))
    wasmer_python: Folder | None = setting(None, "A Python 3.10 with wasmer, if this Python has none.", roles=(E,))
    wasm_components: bool = setting(True, "Run WASI preview 2 command components (wasmtime only).", roles=(E,))
    metering: Literal["injected", "native"] = setting(
        "injected", "Who counts instructions: the module itself (injected) or the engine's own fuel (native).", roles=(E,)
    )
    wasm_cache_max_mb: int = setting(1024, "Size of the disk cache of modules and their native code.", unit="MiB", roles=(E,), ge=16)

    resolves_per_transaction: int = setting(10, "Most resolves in one transaction of a full-access key.", roles=(R,), ge=1, le=100)
    key_window: int = setting(8, "Most transactions of one key in flight; 1 = the careful mode.", roles=(R,), ge=1, le=64)
    resolve_gas_tgas: int = setting(30, "Gas attached to one resolve.", unit="TGas", roles=(R,), ge=5, le=300)

    web_host: str = setting("127.0.0.1", "Address of the status page; one that other machines can reach needs WEB_TOKEN.", roles=(W,))
    web_port: int = setting(8585, "Port of the status page.", roles=(W,), ge=1, le=65535)
    web_token: SecretStr = setting(SecretStr(""), "Token of the status page, at least 16 characters: `openssl rand -hex 24`.", roles=(W,))

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
