"""Writes docs/metrics.md from ``offchainvm.metrics``: ``make docs``. A test proves that the page is in step."""

from __future__ import annotations

import sys
from pathlib import Path

from offchainvm import metrics
from offchainvm.metrics import Histogram
from offchainvm.metrics.series import Series

PAGE = Path(__file__).with_name("metrics.md")
MANY, FIRST = 12, 5

HEAD = """\
# Metrics

<!-- Written by docs/metrics_page.py (`make docs`): do not edit by hand. -->

For operators: every metric and its labels. [observe.md](observe.md) shows how to collect and alert on them.

Each process serves its metrics at `/metrics` on METRICS_PORT, in Prometheus' text format, together with `offchainvm_info{version}` and
`process_…`. Units are base units. Each label has a closed set of values, and anything else is shown as `other`: no repository, sender or
key is ever a label. A worker shows what all processes of its pool counted. Only the bridge shows what Redis knows of the whole fleet
(queues, totals, keys), and reads it at most once every three seconds.

A histogram has three series: `NAME_bucket` (label `le`), `NAME_sum` and `NAME_count`.

| name | kind | labels | |
|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    return HEAD + "".join(map(_line, metrics.ALL.values()))


def _line(series: Series) -> str:
    labels = "; ".join(f"`{label}`: {_values(values)}" for label, values in series.labels.items())
    buckets = f" Buckets: {', '.join(f'{bucket:g}' for bucket in series.buckets)}." if isinstance(series, Histogram) else ""
    return f"| `{series.name}` | {series.kind} | {labels} | {series.help}{buckets} |\n"


def _values(values: tuple[str, ...]) -> str:
    more = f", … ({len(values)} in all: codes of offchainvm/errors.py)" if len(values) > MANY else ""
    return ", ".join(values[:FIRST] if more else values) + more


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
