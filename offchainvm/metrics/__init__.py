"""What this process counts and measures, for Prometheus; ``/metrics`` on METRICS_PORT shows it (``offchainvm.health``)."""

from __future__ import annotations

from offchainvm.metrics import pool
from offchainvm.metrics.series import ALL, Counter, Histogram, Reading, Values, add_source, apply, exposition
from offchainvm.metrics.table import *  # noqa: F403 -- the table is what callers want: metrics.STAGE_RUNS

__all__ = ["ALL", "Counter", "Histogram", "Reading", "Values", "add_source", "apply", "exposition", "pool"]
