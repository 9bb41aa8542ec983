"""The kinds of series: counters and histograms that code adds to, and readings that are taken when somebody asks.

Every label has a closed set of values; whatever is not among them becomes ``other``. So no name of a repository, sender or
key can get in, and the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from offchainvm import __version__
from offchainvm.errors import OffchainVMError
from offchainvm.logs import get_logger
from offchainvm.metrics import pool

log = get_logger()

PREFIX = "offchainvm_"
OTHER = "other"
REGISTRY = CollectorRegistry()
Values: TypeAlias = Mapping[tuple[str, ...], float]
"""A reading: one number for each combination of label values, in the order of the labels."""


class Series:
    """One name with its labels: ``labels`` maps each to all values that it may have."""

    kind = ""

    def __init__(self, name: str, help: str, **labels: Iterable[str]) -> None:
        self.name, self.help = PREFIX + name, help
        self.labels = {label: tuple(values) for label, values in labels.items()}
        ALL[self.name] = self

    def closed(self, given: Sequence[str]) -> tuple[str, ...]:
        """The given label values, each within its set."""
        return tuple(value if value in allowed else OTHER for value, allowed in zip(given, self.labels.values(), strict=True))

    def _change(self, amount: float, labels: Mapping[str, str]) -> None:
        values = self.closed([labels[label] for label in self.labels])
        if not pool.hand_over(self.name, amount, values):
            self.apply(amount, values)

    def apply(self, amount: float, values: Sequence[str]) -> None:
        """Add to this process' own series."""
        raise NotImplementedError


ALL: dict[str, Series] = {}


class Counter(Series):
    """A number that only rises; ``start`` lists label values that are shown as 0 from the beginning, so that a first rise is seen."""

    kind = "counter"

    def __init__(self, name: str, help: str, *, start: Sequence[tuple[str, ...]] = (), **labels: Iterable[str]) -> None:
        super().__init__(name, help, **labels)
        self._metric = prometheus_client.Counter(self.name.removesuffix("_total"), help, list(self.labels), registry=REGISTRY)
        for values in start:
            self._metric.labels(*values)

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Count one, or ``amount``."""
        self._change(amount, labels)

    def apply(self, amount: float, values: Sequence[str]) -> None:
        (self._metric.labels(*values) if values else self._metric).inc(amount)


class Histogram(Series):
    """How measured values spread over ``buckets`` (upper bounds)."""

    kind = "histogram"

    def __init__(self, name: str, help: str, *, buckets: Sequence[float], **labels: Iterable[str]) -> None:
        super().__init__(name, help, **labels)
        self.buckets = tuple(buckets)
        self._metric = prometheus_client.Histogram(self.name, help, list(self.labels), registry=REGISTRY, buckets=self.buckets)

    def observe(self, value: float, **labels: str) -> None:
        """Note one measured value."""
        self._change(value, labels)

    def apply(self, amount: float, values: Sequence[str]) -> None:
        (self._metric.labels(*values) if values else self._metric).observe(amount)


class Reading(Series):
    """What is read somewhere else when Prometheus asks: a gauge, or a counter that lives in Redis (its name ends in ``_total``)."""

    def __init__(self, name: str, help: str, **labels: Iterable[str]) -> None:
        super().__init__(name, help, **labels)
        self.kind = "counter" if name.endswith("_total") else "gauge"

    def family(self, values: Values) -> Metric:
        """The reading as Prometheus takes it."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name.removesuffix("_total"), self.help, labels=list(self.labels))
        for given, value in values.items():
            family.add_metric(self.closed(given), value)
        return family


class _Sources(Collector):
    """Every reading of this process, by the name of its source."""

    def __init__(self) -> None:
        self.by_name: dict[str, Callable[[], Mapping[Reading, Values]]] = {}

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would read once to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """A source that cannot be read leaves out its readings, and no others."""
        for name, read in list(self.by_name.items()):
            try:
                found = read()
            except OffchainVMError as error:
                log.debug("A reading cannot be taken.", action="read_metrics", source=name, error=error.sentence)
            else:
                yield from (reading.family(values) for reading, values in found.items())


_sources = _Sources()


def add_source(name: str, read: Callable[[], Mapping[Reading, Values]]) -> None:
    """Have ``read`` called whenever Prometheus asks this process; it may raise OffchainVMError."""
    _sources.by_name[name] = read


def exposition() -> tuple[bytes, str]:
    """All that this process knows, as Prometheus' text, and the text's content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


def apply(name: str, amount: float, values: Sequence[str]) -> None:
    """Add what a pool process counted; a name that this version does not know is ignored."""
    series = ALL.get(name)
    if series is not None:
        series.apply(amount, series.closed(values))


REGISTRY.register(_sources)
ProcessCollector(registry=REGISTRY)
prometheus_client.Gauge(PREFIX + "info", "The version that runs here.", ["version"], registry=REGISTRY).labels(__version__).set(1)
