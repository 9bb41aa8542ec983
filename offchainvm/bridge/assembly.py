"""Puts the bridge together, and the event monitor, from the settings of their roles."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis

from offchainvm import health, metrics
from offchainvm.bridge.admission import Admission, LimitPolicy
from offchainvm.bridge.announcer import Announcer
from offchainvm.bridge.evidence import Examiner
from offchainvm.bridge.head import Head
from offchainvm.bridge.intake import Intake
from offchainvm.bridge.keeper import Keeper
from offchainvm.bridge.lists import Lists, Patterns
from offchainvm.bridge.monitor import Monitor, Subject
from offchainvm.bridge.poller import Backlog, Poller
from offchainvm.bridge.readings import FleetReadings, monitor_readings
from offchainvm.bridge.reconciler import Reconciliation, Uptime
from offchainvm.bridge.relay import Relay, open_broker
from offchainvm.bridge.reporter import Reporter
from offchainvm.bridge.service import Part, Service
from offchainvm.bridge.settler import Settler
from offchainvm.bridge.unpolled import Unpolled
from offchainvm.bridge.verdicts import Verdicts
from offchainvm.bridge.watch import Watch
from offchainvm.compiler.source import Resolver
from offchainvm.contract import kept_request
from offchainvm.coordinator import POLL_MARGIN_SECONDS, Coordinator
from offchainvm.fleet import Heartbeat, Member, Registry
from offchainvm.health.server import serve
from offchainvm.jobs.connection import connect
from offchainvm.jobs.journals import Journals
from offchainvm.jobs.outbox import Outbox
from offchainvm.jobs.pauses import Pauses
from offchainvm.jobs.reconcile import Reconciler
from offchainvm.jobs.reports import Reports
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.journal import Journal, size_bytes
from offchainvm.models import ResourceLimits
from offchainvm.near.blocks import BlockService
from offchainvm.near.heights import height_sources, newest_height
from offchainvm.near.nonces import Nonces
from offchainvm.near.readahead import ReadAhead, width_for
from offchainvm.near.rpc import Rpc
from offchainvm.settings import Settings

_SLOW_SECONDS = 900.0
"""For a turn that deals with all there is: hundreds of calls, each of which may wait for its time-out."""
_BLOCK_SERVICE_KEPT_SECONDS = 30.0
"""Of a look at the block service: its requests are counted."""
_RESOLVER_SECONDS = 5.0
"""A reference that takes longer to resolve is left to the compile stage: a poll must go on."""


class Bridge:
    """The rooms of one bridge process; ``service`` runs them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect(settings.redis_url)
        self._store = _store(settings, self._redis)
        self._coordinator = _coordinator(settings)
        self._rpc = Rpc(settings.near_rpc_url, read_seconds=8.0, connections=16, ca_bundle=settings.ca_bundle)
        self._head = Head(lambda: self._rpc.final_block().height)
        self._admission = _admission(settings, self._store, self._coordinator, rpc=self._rpc, head=self._head)
        self._journal = Journal(settings.state_dir.expanduser() / "journal", "bridge")
        self._intake = Intake(journal=self._journal, store=self._store, admission=self._admission)
        self._keeper = Keeper(self._intake, journals=Journals(self._redis), home=self._journal.home, worker=settings.node_name)

    def service(self) -> Service:
        """All parts of the bridge, the monitor among them where ENABLE_EVENT_MONITOR says so."""
        broker, reporter = open_broker(), Reporter(reports=Reports(self._redis), coordinator=self._coordinator)
        settler = self._settler(reporter)
        relay = Relay(outbox=Outbox(self._redis), broker=broker, consumer=self._settings.node_name)
        reconciliation = Reconciliation(
            reconciler=Reconciler(self._redis),
            uptime=Uptime(self._store.server_run_id),
            published=open_broker().published,
            intake=self._intake,
        )
        health.add_check("rpc", self._rpc.final_block)
        metrics.add_source("fleet", self._readings().read)
        parts = [
            Part("keeper", self._keeper.run, patience_seconds=_SLOW_SECONDS),
            *self._pollers(),
            Part("relay", relay.run),
            Part("reconciler", reconciliation.run),
            Part("settler", settler.run, patience_seconds=_SLOW_SECONDS),
            Part("reporter", reporter.run, patience_seconds=_SLOW_SECONDS),
            Part("head", self._head.run, grace_seconds=1.0),
        ]
        if self._settings.enable_event_monitor:
            monitor = event_monitor(self._settings, self._redis, self._store, self._coordinator, self._admission, rpc=self._rpc)
            parts.append(_monitor_part(monitor))
        return _service(
            self._settings,
            parts,
            member=self._member(),
            redis=self._redis,
            store=self._store,
            coordinator=self._coordinator,
            closing=[settler.close, reporter.close, self._keeper.leave, self._journal.close, self._coordinator.close],
        )

    def _pollers(self) -> list[Part]:
        poller = Poller(
            coordinator=self._coordinator,
            intake=self._intake,
            backlog=Backlog(self._store, Resolves(self._redis), high_water=self._settings.queue_high_water),
            pauses=Pauses(self._redis),
            worker=self._settings.node_name,
            timeout_seconds=self._settings.poll_timeout_seconds,
            on_later=self._keeper.tell,
        )
        grace_seconds = poller.longest_poll_seconds + POLL_MARGIN_SECONDS
        count = self._settings.poll_concurrency
        return [Part(f"poller-{number}", poller.run, intake=True, grace_seconds=grace_seconds) for number in range(1, count + 1)]

    def _member(self) -> Member:
        node, polls = self._settings.node_name, self._settings.poll_concurrency
        roles = ("bridge", "monitor") if self._settings.enable_event_monitor else ("bridge",)
        return Member(f"bridge@{node}", node, roles, capacity=polls)

    def _readings(self) -> FleetReadings:
        operator_id, journals = self._settings.operator_account_id, self._settings.state_dir.expanduser() / "journal"
        return FleetReadings(
            redis=self._redis,
            rpc=self._rpc,
            operator_id=operator_id,
            contract_id=self._settings.offchainvm_contract_id,
            journal_bytes=lambda: size_bytes(journals, "bridge"),
        )

    def _settler(self, reporter: Reporter) -> Settler:
        operator_id, resolves = self._settings.operator_account_id, Resolves(self._redis)
        return Settler(
            resolves=resolves,
            rpc=self._rpc,
            verdicts=Verdicts(rpc=self._rpc, resolves=resolves, store=self._store, operator_id=operator_id),
            examiner=Examiner(self._rpc, operator_id=operator_id),
            nonces=lambda: Nonces(self._redis, network=self._rpc.chain_id(), account_id=operator_id),
            operator_id=operator_id,
            on_settled=reporter.wake,
        )


def monitor_service(settings: Settings) -> Service:
    """The event monitor as a process of its own."""
    redis, coordinator = connect(settings.redis_url), _coordinator(settings)
    store = _store(settings, redis)
    monitor = event_monitor(settings, redis, store, coordinator, _admission(settings, store, coordinator))
    member = Member(f"monitor@{settings.node_name}", settings.node_name, ("monitor",))
    parts = [_monitor_part(monitor)]
    return _service(settings, parts, member=member, redis=redis, store=store, coordinator=coordinator, closing=[coordinator.close])


def event_monitor(
    settings: Settings, redis: Redis, store: JobStore, coordinator: Coordinator, admission: Admission, *, rpc: Rpc | None = None
) -> Monitor:
    """The event monitor; ``rpc``: one more source of the newest height, where this process has it."""
    contract_id = settings.offchainvm_contract_id
    blocks = BlockService(
        settings.neardata_api_url,
        api_key=settings.neardata_api_key,
        requests_per_minute=settings.neardata_requests_per_minute,
        ca_bundle=settings.ca_bundle,
    )
    heights = height_sources(blocks, settings.fastnear_api_url, ca_bundle=settings.ca_bundle)
    if rpc is not None:
        heights.append(lambda: rpc.final_block().height)
    health.add_check("block service", blocks.last_final_height, kept_seconds=_BLOCK_SERVICE_KEPT_SECONDS)
    unpolled = Unpolled(redis=redis, store=store, admission=admission, contract_id=contract_id)
    return Monitor(
        Subject(contract_id, settings.event_standard, settings.start_block_height, settings.scan_interval_seconds),
        watch=Watch(redis, contract_id, holder=settings.node_name),
        blocks=ReadAhead(blocks, width=width_for(settings.neardata_requests_per_minute)),
        newest_height=lambda: newest_height(heights),
        announcer=Announcer(
            redis=redis,
            store=store,
            coordinator=coordinator,
            unpolled=unpolled,
            contract_id=contract_id,
            defaults=settings.limit_defaults,
        ),
        unpolled=unpolled,
        store=store,
    )


def _monitor_part(monitor: Monitor) -> Part:
    health.add_check("event monitor", monitor.check)
    metrics.add_source("monitor", lambda: monitor_readings(monitor))
    return Part("monitor", monitor.run, intake=True, grace_seconds=20.0, patience_seconds=_SLOW_SECONDS)


def _service(
    settings: Settings,
    parts: list[Part],
    *,
    member: Member,
    redis: Redis,
    store: JobStore,
    coordinator: Coordinator,
    closing: list[Callable[[], None]],
) -> Service:
    health.add_check("redis", lambda: bool(store.server_run_id()))
    health.add_check("coordinator", coordinator.health)
    heartbeat = Heartbeat(Registry(redis), member, well=health.is_live)
    server = serve(settings.metrics_port, name=member.id)
    return Service([*parts, Part("heartbeat", heartbeat.run)], name=member.id, on_stop=[*closing, *([server.stop] if server else [])])


def _store(settings: Settings, redis: Redis) -> JobStore:
    return JobStore(redis, retention_seconds=settings.job_retention_hours * 3600, fair_share=settings.fair_share)


def _coordinator(settings: Settings) -> Coordinator:
    return Coordinator(
        settings.api_base_url,
        settings.api_auth_token,
        worker_id=settings.node_name,
        ca_bundle=settings.ca_bundle,
        pool_size=settings.poll_concurrency + 8,
    )


def _admission(
    settings: Settings, store: JobStore, coordinator: Coordinator, *, rpc: Rpc | None = None, head: Head | None = None
) -> Admission:
    contract_id = settings.offchainvm_contract_id
    most = ResourceLimits(
        max_instructions=settings.max_instructions,
        max_memory_mb=settings.max_memory_mb,
        max_execution_seconds=settings.max_execution_seconds,
    )
    return Admission(
        store=store,
        coordinator=coordinator,
        resolver=Resolver(settings.source_mirror_url, timeout_seconds=_RESOLVER_SECONDS, ca_bundle=settings.ca_bundle),
        limits=LimitPolicy(defaults=settings.limit_defaults, most=most),
        mirror_url=settings.source_mirror_url,
        head=(lambda: None) if head is None else head.height,
        lists=Lists(
            repositories=Patterns(allow=settings.allow_repositories, deny=settings.deny_repositories),
            senders=Patterns(allow=settings.allow_senders, deny=settings.deny_senders),
        ),
        kept=(lambda *_: None) if rpc is None else lambda data_id, request_id: kept_request(rpc, contract_id, data_id, request_id),
    )
