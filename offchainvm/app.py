"""The Celery application: its configuration, and how a worker starts.

``celery -A offchainvm worker -Q compile`` (or ``execute``, ``resolve``) serves one role; without ``-Q`` a worker serves
every role whose needs are met, and says which it left out and why.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from billiard import active_children
from celery import Celery, signals
from redis import Redis

from offchainvm import health, logs, metrics, notify
from offchainvm.broker import VisibilityStep
from offchainvm.engine.identity import find_engine
from offchainvm.errors import OffchainVMError, SettingsError
from offchainvm.fleet import Heartbeat, Member, Registry
from offchainvm.health.server import serve
from offchainvm.jobs.connection import connect
from offchainvm.journal import show_size
from offchainvm.redis_calls import reaching_redis
from offchainvm.resolve_child import METRICS_SOCKET, ResolveChild
from offchainvm.settings import Role, Settings, environment_of, load, load_common

log = logs.get_logger()

WORKER_ROLES = (Role.COMPILE, Role.EXECUTE, Role.RESOLVE)
POOL = "prefork"
"""Of compile and execute: a process for each job, which holds its lease and its sandbox's process group, beside one that is free to
renew the messages in hand and to say that the worker lives."""
CONFIG_FILE = Path(__file__).resolve().parent.parent / "celeryconfig.py"


def _config_from_file(path: Path) -> Any:
    # By its place, not by its name: a stranger's celeryconfig.py in the working folder must not win.
    spec = importlib.util.spec_from_file_location("offchainvm._celeryconfig", path)
    if spec is None or spec.loader is None:
        raise SettingsError([f"{path}: cannot be loaded. Install the package again."])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


app = Celery("offchainvm")
app.config_from_object(_config_from_file(CONFIG_FILE))
app.steps["consumer"].add(VisibilityStep)

_child: ResolveChild | None = None
_heartbeat: Heartbeat | None = None


def _open_role(role: Role) -> Settings:
    """Settings of ``role``, after its task is registered and its needs were looked at.

    Raises:
        OffchainVMError: what is missing, with its remedy.
    """
    settings = load([role])
    room = importlib.import_module(f"offchainvm.tasks.{role.value}")
    room.prepare(app, settings)
    return settings


def _served(roles: Sequence[Role], *, all_needed: bool) -> list[Role]:
    served = []
    for role in roles:
        try:
            _open_role(role)
        except OffchainVMError as error:
            if all_needed:
                print(f"offchainvm: the {role.value} worker cannot start.\n{error}", file=sys.stderr)
                raise SystemExit(2) from None
            log.warning("A queue is left out.", action="leave_out_queue", queue=role.value, reason=str(error))
        else:
            served.append(role)
    return served


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    """Connected so that Celery leaves logging to ``logs``; set up when the roles are known."""


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _start_worker(instance: Any, options: dict[str, Any], **_: Any) -> None:
    common = load_common()
    logs.configure(level=common.log_level, format=common.log_format, node=common.node_name)
    instance.quiet = common.log_format == "json"  # a line an event: no banner
    _open_metrics()
    queues = options.get("queues") or ()
    asked = [name.strip() for name in (queues.split(",") if isinstance(queues, str) else queues)]
    roles = _served([role for role in WORKER_ROLES if not asked or role.value in asked], all_needed=bool(asked))
    if not roles:
        print("offchainvm: no queue can be served here. The lines above say what each needs.", file=sys.stderr)
        raise SystemExit(2)
    if not asked:
        app.amqp.queues.select([role.value for role in roles])
    if instance.hostname == _default_node_name():
        instance.hostname = f"{'-'.join(role.value for role in roles)}@{common.node_name}"
    _refuse_other_pools(_pool_name(options), roles)
    redis = connect(common.redis_url)
    health.add_check("redis", lambda: _ping(redis))
    serve(common.metrics_port, name=instance.hostname)
    if Role.EXECUTE in roles and Role.RESOLVE not in roles:
        _start_resolve_child()


def _open_metrics() -> None:
    beside = os.environ.get(METRICS_SOCKET)
    if beside:
        metrics.pool.join(int(beside))
    else:
        metrics.pool.receive(metrics.apply)


def _ping(redis: Redis) -> None:
    with reaching_redis():
        redis.ping()


def _pool_name(options: dict[str, Any]) -> str:
    from celery.concurrency import get_implementation  # noqa: PLC0415 -- a worker's, not every process's

    asked = options.get("pool_cls") or options.get("pool") or app.conf.worker_pool
    pool = get_implementation(asked) if isinstance(asked, str) else asked
    return str(pool.__module__).rpartition(".")[2]


def _refuse_other_pools(pool: str, roles: Sequence[Role]) -> None:
    """End a worker whose compile or execute jobs would share a process with each other, or with what keeps the worker alive."""
    wanting = [role.value for role in roles if role in {Role.COMPILE, Role.EXECUTE}]
    if wanting and pool != POOL:
        print(
            f"offchainvm: the {' and '.join(wanting)} worker wants a process for each job: with the pool {pool!r} a long one would be "
            f"delivered again, or its worker taken for dead. Leave -P out, or give -P {POOL}; -c tells how many run at once.",
            file=sys.stderr,
        )
        raise SystemExit(2)


def _default_node_name() -> str:
    from celery.utils.nodenames import default_nodename  # noqa: PLC0415 -- a worker's, not every process's

    return str(default_nodename(None))


def _start_resolve_child() -> None:
    global _child  # noqa: PLW0603 -- one child a process, ended by the signal below
    try:
        settings = load([Role.RESOLVE])
    except SettingsError:
        log.debug("No operator key here: another worker resolves.", action="skip_resolve_child")
        return
    # Its name is ours: so its liveness file can be found.
    given = {**environment_of([Role.RESOLVE]), "WORKER_ID": settings.node_name}
    _child = ResolveChild(settings=given, metrics_socket=metrics.pool.descriptor())
    health.watch_process("resolve worker", health.Process(f"{Role.RESOLVE.value}@{settings.node_name}"))
    show_size(settings.state_dir / "journal", Role.RESOLVE.value)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _join_fleet(sender: Any, **_: Any) -> None:
    global _heartbeat  # noqa: PLW0603 -- one a process, ended with the worker
    settings = load_common()
    roles = tuple(role.value for role in WORKER_ROLES if role.value in app.amqp.queues.consume_from)
    engines = _engines() if Role.EXECUTE.value in roles else ()
    member = Member(sender.hostname, settings.node_name, roles, capacity=sender.controller.concurrency, engines=engines)
    _heartbeat = Heartbeat(Registry(connect(settings.redis_url)), member, well=health.is_live).start()


def _engines() -> tuple[str, ...]:
    settings = load([Role.EXECUTE])
    engine = find_engine(settings.wasm_runtime, metering=settings.metering, wasmer_python=settings.wasmer_python)
    return (f"{engine.name} {engine.version}",)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _begin_to_stop(**_: Any) -> None:
    # Celery would hear a second SIGTERM as it heard the first.
    signal.signal(signal.SIGTERM, _end_at_once)
    notify.tell(notify.STOPPING)
    log.info("Asked to stop: the jobs in hand are finished first. A second signal ends this worker at once.", action="worker_stopping")


def _end_at_once(number: int, _frame: object) -> None:
    log.warning("Ended by a second signal: what was in hand is taken up again when its lease runs out.", action="end_at_once")
    for child in active_children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(128 + number)


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop_worker(sender: Any, **_: Any) -> None:
    if _heartbeat is not None:
        _heartbeat.stop()
    if _child is None:
        return
    if _child.lost:
        sender.exitcode = 1  # a supervisor that restarts what failed must not take this for a stop that was asked for
    _child.stop()


@signals.task_postrun.connect  # type: ignore[untyped-decorator]
def _hand_over_metrics(**_: Any) -> None:
    metrics.pool.flush()


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _lead_a_process_group(**_: Any) -> None:
    # What a job starts outlives a pool process that is killed, unless it can be found by its group.
    if os.getpid() != os.getsid(0):  # the leader of a session (a solo pool's only process) leads its group already
        os.setpgrp()
