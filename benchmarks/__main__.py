"""``python -m benchmarks``: the whole way, warm; a table, and a JSON file in ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.way import Measured, Run, Scenario

RESULTS = Path(__file__).parent / "results"
SCENARIOS = (
    Scenario(name="idle, one job at a time", jobs=60, keys=1, commit_seconds=0, idle=True),
    Scenario(name="chain answers at once, 1 key", jobs=1500, keys=1, commit_seconds=0),
    Scenario(name="chain answers at once, 16 keys", jobs=1500, keys=16, commit_seconds=0),
    Scenario(name="chain takes 1.2 s, 1 key", jobs=100, keys=1, commit_seconds=1.2),
    Scenario(name="chain takes 1.2 s, 16 keys", jobs=1000, keys=16, commit_seconds=1.2),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="run the scenarios whose name contains this")
    parser.add_argument("--share", type=float, default=1.0, help="share of the jobs, for a quick look")
    options = parser.parse_args()
    console, done = Console(width=max(160, Console().width)), []
    for scenario in SCENARIOS:
        if options.only in scenario.name:
            console.print(f"[dim]{scenario.name}, {scenario.jobs} jobs …[/dim]")
            jobs = max(1, int(scenario.jobs * options.share))
            done.append(Run(Scenario(**{**asdict(scenario), "jobs": jobs})).measure())
    console.print(_table(done))
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"way-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.write_text(json.dumps({"python": platform.python_version(), "measured": [asdict(item) for item in done]}, indent=2))
    console.print(f"Written to {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


def _table(done: list[Measured]) -> Table:
    table = Table(title="The whole way of a job, warm")
    for column in ("scenario", "jobs/s", "polled to sent p50 / p95", "CPU a job", "by process", "peak memory"):
        table.add_column(column)
    for item in done:
        cpu = {name: value for name, value in sorted(item.cpu_ms_per_job.items(), key=lambda pair: -pair[1]) if value >= 0.01}
        table.add_row(
            item.scenario.name,
            "" if item.scenario.idle else f"{item.jobs_per_second:.1f}",
            "{:.0f} / {:.0f} ms".format(*item.polled_to_sent_ms),
            f"{sum(cpu.values()):.1f} ms" if cpu else "",
            ", ".join(f"{name} {value:.2f}" for name, value in cpu.items()),
            ", ".join(f"{name} {value:.0f} MiB" for name, value in item.peak_mib.items()),
        )
    return table


if __name__ == "__main__":
    main()
