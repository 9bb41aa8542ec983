"""Every series by name: docs/metrics.md is written from this table. Units are base units: seconds, bytes, yoctoNEAR."""

from __future__ import annotations

from offchainvm.errors import BuildCode, JobCode, Status
from offchainvm.metrics.series import Counter, Histogram, Reading

_BUILD_CODES = tuple(code.value for code in BuildCode)
_STATUSES = tuple(status.value for status in Status)
_CODES = tuple(sorted({*_BUILD_CODES, *_STATUSES, *(code.value for code in JobCode)}))
STAGES = ("compile", "execute", "resolve")
VERDICTS = ("accepted", "resolved_elsewhere", "expired", "refused")
ROLES = ("bridge", "monitor", *STAGES, "web")
_CALLS = ("ok", "refused", "unavailable", "timeout")
_QUICK_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 130)
_LONG_SECONDS = (0.01, 0.05, 0.25, 1, 5, 15, 60, 120, 300, 900, 3600)

# Told by every process.
LIVE = Reading("live", "1 while every loop of this process runs, else 0.")

# Counted by the workers, where the work is done.
STAGE_RUNS = Counter(
    "stage_runs_total", "Jobs that compile and execute workers claimed, by how the claim ended.",
    stage=STAGES[:2], outcome=("done", "failed", "rebuild", "left", "fenced_out"),
)  # fmt: skip
STAGE_SECONDS = Histogram("stage_seconds", "Time from a job's claim to its end.", buckets=_LONG_SECONDS, stage=STAGES[:2])
STAGE_REPEATS = Counter(
    "stage_repeats_total", "Claims that put their job back, because a service was away or the failure is retried.",
    stage=STAGES[:2], why=("service_away", "failure"),
)  # fmt: skip
JOBS_FAILED = Counter(
    "jobs_failed_total", "Jobs that ended with an error other than their module's, by error code.",
    start=[(stage, JobCode.POISON.value) for stage in STAGES[:2]], stage=STAGES[:2], code=_CODES,
)  # fmt: skip
ANSWER_SECONDS = Histogram("answer_seconds", "Time from a job's acceptance to its answer, before it is signed.", buckets=_LONG_SECONDS)
BUILDS = Counter(
    "builds_total", "Sources, by how their module was obtained: from the cache, from another job's build, built here, or the error's code.",
    outcome=("cached", "shared", "made", "cancelled", *_BUILD_CODES),
)  # fmt: skip
BUILD_SECONDS = Histogram("build_seconds", "Time of a build in the sandbox, failed ones included.", buckets=_LONG_SECONDS)
EXECUTIONS = Counter("executions_total", "Executions, by status.", status=_STATUSES)
EXECUTION_SECONDS = Histogram("execution_seconds", "Wall time of executions.", buckets=_LONG_SECONDS)
EXECUTION_INSTRUCTIONS = Histogram(
    "execution_instructions", "Instructions that executions used.", buckets=[10.0**power for power in range(3, 12)]
)
EXECUTION_MEMORY_BYTES = Histogram(
    "execution_memory_bytes", "Peak linear memory of executions.", buckets=[2.0**power for power in range(16, 33, 2)]
)
TRANSACTIONS = Counter(
    "transactions_total", "Resolve transactions, by what happened to them; each is counted at every step of its way.",
    outcome=("signed", "sent", "unsent", "sent_again", "succeeded", "failed", "dead"),
)  # fmt: skip

# Counted by the bridge, when an outcome is final.
RESOLVE_SECONDS = Histogram("resolve_seconds", "Time from a transaction's signature to its final outcome on chain.", buckets=_QUICK_SECONDS)
JOB_SECONDS = Histogram("job_seconds", "Time from a job's acceptance to its end: its answer is final on chain.", buckets=_LONG_SECONDS)

# Counted by whoever calls.
COORDINATOR_SECONDS = Histogram(
    "coordinator_call_seconds", "HTTP calls to the Coordinator; a poll lasts until a task comes.", buckets=_QUICK_SECONDS,
    route=("tasks/poll", "tasks/create", "tasks/complete", "tasks/fail", "wasm", "wasm/exists", "wasm/upload",
           "locks/acquire", "locks/release", "health"),
    outcome=_CALLS,
)  # fmt: skip
RPC_SECONDS = Histogram(
    "rpc_call_seconds", "JSON-RPC calls to the chain, one for each endpoint asked.", buckets=_QUICK_SECONDS,
    method=("send_tx", "tx", "block", "query", "status", "EXPERIMENTAL_protocol_config"), outcome=_CALLS,
)  # fmt: skip

# Counted by the bridge and the event monitor.
TASKS_POLLED = Counter("tasks_polled_total", "Tasks that polls brought.", outcome=("accepted", "rejected", "later"))
DEATHS = Counter("claim_deaths_total", "Claims without a result: their worker died, or lost its lease.")
REPUBLISHED = Counter("republished_total", "Messages published again because the broker had fewer messages than there are jobs.")
MONITOR_LAG_BLOCKS = Reading("monitor_lag_blocks", "Blocks between the newest one and the last one that the active event monitor read.")
MONITOR_LAG_SECONDS = Reading("monitor_lag_seconds", "Age of the last block that the active event monitor read; 0 where it is the newest.")
MONITOR_EVENTS = Reading("monitor_events_total", "Events of the contract.", outcome=("announced", "malformed"))
JOURNAL_BYTES = Reading("journal_bytes", "Size of the journals below STATE_DIR, by role.", role=("bridge", "resolve"))

# Facts of the whole fleet, read from Redis (and the chain): the bridge alone shows them.
QUEUE_JOBS = Reading("queue_jobs", "Jobs that wait for a worker; for resolve, those that wait for a signature.", stage=STAGES)
QUEUE_OLDEST_SECONDS = Reading("queue_oldest_seconds", "How long the oldest waiting job has waited; 0 when none waits.", stage=STAGES)
QUEUE_ROUNDS = Reading("queue_rounds", "Waiting jobs of the sender or repository that has the most.", stage=STAGES[:2])
JOBS = Reading("jobs", "Jobs under way, by where they stand.", place=("running", "parked", "taken"))
TRANSACTIONS_IN_FLIGHT = Reading("transactions_in_flight", "Transactions that may still land.")
KEYS_HELD = Reading("keys_held", "Keys of the operator that sign nothing for now.", why=("unseen", "refused"))
REPORTS_WAITING = Reading("reports_waiting", "Reports that the Coordinator has not taken yet.")
OUTBOX_MESSAGES = Reading("outbox_messages", "Messages that the broker has not taken yet.")
JOBS_SETTLED = Reading("jobs_settled_total", "Jobs, by how they ended on chain; `expired` means a missed deadline.", verdict=VERDICTS)
SPENT_YOCTO = Reading("spent_yoctonear_total", "Tokens that our settled transactions burnt (yoctoNEAR).")
EARNED_YOCTO = Reading("earned_yoctonear_total", "What the contract charged for what we resolved, by its prices (yoctoNEAR).")
MONITOR_CURSOR_AGE_SECONDS = Reading(
    "monitor_cursor_age_seconds",
    "Age of the last block that any event monitor read, kept in Redis; it grows when no monitor is left to report its lag.",
)
BALANCE_YOCTO = Reading("operator_balance_yoctonear", "Balance of the operator's account, checked once a minute.")
WORKERS = Reading("workers", "Registered processes that were seen recently and are live.", role=ROLES)
