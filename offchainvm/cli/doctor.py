"""``offchainvm doctor``: the view from outside. Each row says what is wrong, and what to do about it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from offchainvm.cli import report
from offchainvm.compiler import engine, image
from offchainvm.coordinator import Coordinator
from offchainvm.errors import OffchainVMError, SettingsError
from offchainvm.jobs.connection import connect
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.server import reaching_redis
from offchainvm.jobs.store import JobStore
from offchainvm.models import RESOLVE_METHOD
from offchainvm.near.nonces import REFUSED, Nonces
from offchainvm.near.rpc import Rpc
from offchainvm.near.rpc_answers import AccessKey
from offchainvm.near.signer import operator_keys
from offchainvm.settings import Role, Settings, load, load_only

QUEUES = ("compile", "execute", "resolve")
_NO_MODULE = "0" * 64
_INSPECT_SECONDS = 1.5
_RECENT_HOURS = 24
_ROLES = typer.Option(None, "--role", help="Roles that this machine serves; default: all.")
_AS_JSON = typer.Option(False, "--json", help="Print JSON instead of a table.")


@dataclass(frozen=True)
class Row:
    """One line of the examination; ``ok`` is None where it could not be looked at."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


class NotLookedAt(Exception):
    """A check needs a setting that is not there; the row of the settings says so already where it matters."""


def doctor(roles: list[Role] | None = _ROLES, as_json: bool = _AS_JSON) -> None:
    """Look at everything that a worker needs, and say what is wrong and what to do."""
    rows = list(examine(roles or [role for role in Role if role is not Role.MONITOR]))
    wrong = [row for row in rows if row.ok is False]
    if as_json:
        typer.echo(json.dumps({"ok": not wrong, "checks": [asdict(row) for row in rows]}))
    else:
        console = report.console()
        console.print(report.checks_table((row.ok, row.name, row.detail, row.remedy) for row in rows))
        console.print(f"\n{len(wrong)} of {len(rows)} are wrong." if wrong else "\nNothing is wrong.")
    raise typer.Exit(1 if wrong else 0)


def examine(roles: Sequence[Role]) -> Iterator[Row]:
    """All rows, one after the other."""
    yield _settings_row(roles)
    asked = set(roles)
    for needed_by, name, check in CHECKS:
        if asked & needed_by:
            yield _row(name, check)


def _settings_row(roles: Sequence[Role]) -> Row:
    """One row for all roles: they share most settings, and a problem is told once."""
    complete, problems = [], dict[str, None]()
    for role in roles:
        found = _problems_of(role)
        problems.update(dict.fromkeys(found))
        if not found:
            complete.append(role.value)
    ready = f"complete for: {', '.join(complete)}" if complete else "complete for no role"
    if not problems:
        return Row("settings", ok=True, detail=ready)
    return Row(
        "settings", ok=False, detail="\n".join([*problems, ready]), remedy="See docs/settings.md; `--role` names what this machine serves."
    )


def _problems_of(role: Role) -> list[str]:
    try:
        load([role])
    except SettingsError as error:
        return error.problems
    return []


def _row(name: str, check: Callable[[], str]) -> Row:
    try:
        return Row(name, ok=True, detail=check())
    except NotLookedAt as error:
        return Row(name, ok=None, detail=str(error))
    except SettingsError as error:
        return Row(name, ok=False, detail="\n".join(error.problems))
    except OffchainVMError as error:
        return Row(name, ok=False, detail=error.sentence, remedy=error.remedy)
    except Exception as error:  # an examination that stops half way helps nobody
        return Row(
            name, ok=False, detail=f"The check itself broke: {type(error).__name__}.", remedy="Please report this with LOG_LEVEL=debug."
        )


def _need(*names: str) -> Settings:
    """The named settings.

    Raises:
        NotLookedAt: one of them is not set.
    """
    settings = load_only([*names, "ca_bundle"])
    missing = [name.upper() for name in names if not getattr(settings, name)]
    if missing:
        raise NotLookedAt(f"not looked at: {', '.join(missing)} is not set")
    return settings


def check_redis() -> str:
    """Redis answers, and keeps what it is given."""
    with reaching_redis(), connect(_need("redis_url").redis_url) as client:
        version = client.info("server")["redis_version"]
        try:
            values = client.config_get("appendonly", "maxmemory-policy")
        except Exception:  # a hosted Redis forbids CONFIG
            return f"version {version}; its persistence cannot be read"
    if values.get("appendonly") != "yes":
        raise OffchainVMError(
            "It forgets its data when it restarts.", remedy="Set `appendonly yes` and `appendfsync everysec` on the server."
        )
    if values.get("maxmemory-policy", "noeviction") != "noeviction":
        raise OffchainVMError("It drops data when its memory is full.", remedy="Set `maxmemory-policy noeviction` on the server.")
    return f"version {version}, append-only file on"


def check_set_aside() -> str:
    """Nothing was set aside lately: neither tasks that cannot be read, nor messages that the broker does not take."""
    since = time.time() - _RECENT_HOURS * 3600
    with connect(_need("redis_url").redis_url) as client:
        tasks = sum(task.at > since for task in JobStore(client).rejected(1000))
        messages = sum(message.at > since for message in Outbox(client).aside(1000))
    if tasks or messages:
        remedies = [
            "`offchainvm jobs rejected` shows them all.",
            "Tasks: is this worker older than the Coordinator or the contract? Upgrade it." if tasks else "",
            "Messages: the bridge's log says why the broker refuses them; check BROKER_URL (by default REDIS_URL)." if messages else "",
        ]
        raise OffchainVMError(
            f"In the last {_RECENT_HOURS} hours {tasks} tasks that cannot be read and {messages} messages were set aside.",
            remedy=" ".join(filter(None, remedies)),
        )
    return f"nothing in the last {_RECENT_HOURS} hours"


def check_coordinator() -> str:
    """The Coordinator answers and takes our token."""
    settings = _need("api_base_url", "api_auth_token")
    with contextlib.closing(Coordinator(settings.api_base_url, settings.api_auth_token, ca_bundle=settings.ca_bundle)) as coordinator:
        coordinator.health()
        coordinator.wasm_exists(_NO_MODULE)  # the cheapest call that needs the token
    return f"{settings.api_base_url} answers and takes the token"


def check_docker() -> str:
    """A container engine answers."""
    with contextlib.closing(engine.connect()) as client:
        version = client.version()
    return f"engine {version.get('Version')}, API {version.get('ApiVersion')}"


def check_builder_image() -> str:
    """The builder image is there, and is the recorded one. Looks only: what a build would record is not recorded here."""
    settings = load_only(["builder_image", "state_dir"])
    name = settings.builder_image
    with contextlib.closing(engine.connect()) as client:
        layers = image.find_layers(client, name)
    if layers is None:
        raise OffchainVMError(f"The builder image {name} is missing.", remedy="Run `make builder-image`.")
    record = image.read_record(settings.state_dir, name)
    if record is None:
        return f"{name}; the first build will record its layers"
    if record.layers != layers:
        raise OffchainVMError(
            f"The builder image {name} is not the one that was recorded on this worker.",
            remedy=f"Run `make builder-image`, or remove {image.RECORD_NAME} in STATE_DIR to trust the new one.",
        )
    return f"{name}, {record.toolchain or record.origin}"


def check_rpc() -> str:
    """The chain answers by RPC."""
    rpc = _rpc("near_rpc_url")[0]
    return f"{rpc.endpoint}: {rpc.chain_id()}, final height {rpc.final_block().height}"


def check_access_keys() -> str:
    """Each key of the operator is on the account, and may call the contract."""
    rpc, settings = _rpc("near_rpc_url", "operator_account_id", "offchainvm_contract_id", "operator_private_key", "operator_private_keys")
    found = []
    for key in operator_keys(settings.operator_keys):
        on_chain = rpc.access_key(settings.operator_account_id, key.public_key)
        if on_chain is None:
            raise OffchainVMError(
                f"{settings.operator_account_id} has no key {key.public_key}.",
                remedy="Add the key to the account, or correct OPERATOR_PRIVATE_KEY.",
            )
        found.append(f"{key.public_key[:16]}… {_permission(on_chain, settings.offchainvm_contract_id)}")
    return "; ".join(found)


def _permission(key: AccessKey, contract_id: str) -> str:
    """What a key may do, in words.

    Raises:
        OffchainVMError: it may not resolve.
    """
    if key.full_access:
        return "full access (a key restricted to resolve_execution is safer)"
    if not key.may_call(contract_id, RESOLVE_METHOD):
        raise OffchainVMError(
            f"A key may call {key.receiver_id} ({', '.join(key.methods) or 'all methods'}) alone: not {RESOLVE_METHOD} of {contract_id}.",
            remedy=f"Add a key for {RESOLVE_METHOD} of {contract_id}.",
        )
    allowance = "without limit" if key.allowance_yocto is None else f"{key.allowance_yocto / 10**24:.3f} NEAR left"
    return f"function-call key, allowance {allowance}"


def check_held_keys() -> str:
    """The chain takes what the operator's keys sign."""
    rpc, settings = _rpc("near_rpc_url", "operator_account_id", "redis_url")
    with reaching_redis(), connect(settings.redis_url) as client:
        held = Nonces(client, network=rpc.chain_id(), account_id=settings.operator_account_id).held()
    told = "\n".join(f"{public_key}: {reason}" for public_key, reason in sorted(held.items()))
    if any(reason.startswith(REFUSED) for reason in held.values()):
        raise OffchainVMError(told, remedy="Correct the key or the setting, then restart the resolve worker; see docs/keys.md.")
    return told or "no key is held"


def check_operator_role() -> str:
    """The contract knows the account as its operator."""
    rpc, settings = _rpc("near_rpc_url", "operator_account_id", "offchainvm_contract_id")
    owner, operator = json.loads(rpc.view(settings.offchainvm_contract_id, "get_config"))
    if operator != settings.operator_account_id:
        raise OffchainVMError(
            f"The operator of {settings.offchainvm_contract_id} is {operator}, not {settings.operator_account_id}.",
            remedy=f"Let the owner ({owner}) set the operator, or correct OPERATOR_ACCOUNT_ID or OFFCHAINVM_CONTRACT_ID.",
        )
    return f"{operator} is the operator of {settings.offchainvm_contract_id}"


def _rpc(*names: str) -> tuple[Rpc, Settings]:
    settings = _need(*(name for name in names if name != "operator_private_keys"))
    if "operator_private_keys" in names:
        settings = load_only([*names, "ca_bundle"])
    return Rpc(settings.near_rpc_url, ca_bundle=settings.ca_bundle), settings


def check_queue(queue: str) -> str:
    """A worker consumes from ``queue``."""
    workers = sorted(name for name, queues in _consumers().items() if queue in queues)
    if not workers:
        raise OffchainVMError("No worker serves this queue.", remedy=f"Start one: celery -A offchainvm worker -Q {queue}")
    return ", ".join(workers)


@functools.cache
def _consumers() -> dict[str, list[str]]:
    """The queues that each worker consumes from; asked once, since an answer costs its full time-out."""
    from offchainvm.app import app  # noqa: PLC0415 -- Celery takes half a second to import

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=_INSPECT_SECONDS)
            replies = app.control.inspect(timeout=_INSPECT_SECONDS, connection=connection).active_queues() or {}
    except Exception as error:  # each broker has errors of its own
        raise OffchainVMError("The broker does not answer.", remedy="Check BROKER_URL (by default REDIS_URL).") from error
    return {worker: [queue["name"] for queue in queues] for worker, queues in replies.items()}


def check_state_dir() -> str:
    """The state folder can be written."""
    folder = load_only(["state_dir"]).state_dir
    existing: Path = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OffchainVMError(f"{folder} cannot be written by this user.", remedy="Change its owner, or set STATE_DIR.")
    return str(folder)


_B, _M, _C, _E, _R, _D = Role
_ALL = frozenset(Role)
CHECKS: Iterable[tuple[frozenset[Role], str, Callable[[], str]]] = (
    (_ALL - {_D}, "state folder", check_state_dir),
    (_ALL, "Redis", check_redis),
    (frozenset({_B, _M}), "set aside", check_set_aside),
    (frozenset({_B, _M, _C, _E}), "Coordinator", check_coordinator),
    (frozenset({_C}), "Docker", check_docker),
    (frozenset({_C}), "builder image", check_builder_image),
    (frozenset({_B, _E, _R}), "RPC", check_rpc),
    (frozenset({_R}), "access keys", check_access_keys),
    (frozenset({_B, _R}), "held keys", check_held_keys),
    (frozenset({_B, _R}), "operator role", check_operator_role),
    *((_ALL - {_M}, f"queue {queue}", functools.partial(check_queue, queue)) for queue in QUEUES),
)
