"""Celery's settings, the same for every process.

Loaded by ``offchainvm.app`` from this file's place, never by the bare name ``celeryconfig``. What an operator may
change stands in ``offchainvm.settings``; what stands here follows from how a job survives a crash (docs/architecture.md).
"""

from offchainvm import broker
from offchainvm.settings import load_common

_settings = load_common()

broker_url = broker.celery_url(_settings.effective_broker_url)
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a broker that is away comes back
broker_heartbeat = 30  # seconds, on RabbitMQ: after two that are missed a connection counts as lost
broker_transport_options = broker.transport_options(_settings.effective_broker_url)

accept_content = ["json"]
task_serializer = "json"
task_ignore_result = True  # the job record has the result; a result back-end would block 19 s without Redis
task_store_errors_even_if_ignored = False

task_queues = [broker.queue(name, broker_url) for name in ("compile", "execute", "resolve")]
task_default_queue = "execute"
task_create_missing_queues = False  # a message for a queue that nobody serves must fail where it is sent

task_acks_late = True
worker_prefetch_multiplier = 1
worker_consumer = f"{broker.__name__}:{broker.PatientConsumer.__name__}"
# Cancelling what runs when the broker goes loses jobs on Redis.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_soft_shutdown_timeout = 10.0

worker_hijack_root_logger = False
worker_redirect_stdouts = False
worker_send_task_events = _settings.task_events
task_send_sent_event = _settings.task_events
worker_enable_remote_control = True
enable_utc = True
