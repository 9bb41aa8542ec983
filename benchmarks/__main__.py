"""``python -m benchmarks [way|resolve|engine|monitor|build]``: a table, and a JSON file in ``benchmarks/results/``.

``way``: the whole way of a job, warm. ``resolve``: submit and settle alone, at the pace of a real chain.
``engine``: the ways to count instructions, against an engine that counts none; what one execution costs, and how many a second.
``monitor``: the event monitor catching up.
``build``: a sandboxed build beside a bare one, a cache hit, eight builds at once (DOCKER_RUNTIME: in that runtime too).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import build, engine, execution, monitor, resolve, ways
from benchmarks.loops import CALLS, LOOPS
from benchmarks.way import Measured, Run, Scenario
from offchainvm import logs
from offchainvm.settings import load_only

Found = TypeVar("Found")
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
    parser.add_argument("what", nargs="?", choices=list(_MEASURES), default="way")
    parser.add_argument("--only", default="", help="run the scenarios whose name contains this")
    parser.add_argument("--share", type=float, default=1.0, help="share of the jobs, for a quick look")
    options = parser.parse_args()
    console = Console(width=max(160, Console().width))
    done = _MEASURES[options.what](console, options.only, options.share)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{options.what}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.write_text(json.dumps({"python": platform.python_version(), "measured": [asdict(item) for item in done]}, indent=2))
    console.print(f"Written to {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


def _each(console: Console, scenarios: Sequence[Any], measure: Callable[[Any], Any], *, size: str, only: str, share: float) -> list[Any]:
    """Measure each scenario asked for, with a share of its ``size``, the field that says how much is done."""
    done = []
    for scenario in scenarios:
        if only in scenario.name:
            full = getattr(scenario, size)
            console.print(f"[dim]{scenario.name}, {full} {size} …[/dim]")
            done.append(measure(replace(scenario, **{size: max(1, int(full * share))})))
    return done


def _measure_way(console: Console, only: str, share: float) -> Sequence[Measured]:
    done = _each(console, SCENARIOS, lambda scenario: Run(scenario).measure(), size="jobs", only=only, share=share)
    console.print(_table(done))
    return done


def _measure_resolve(console: Console, only: str, share: float) -> Sequence[resolve.Measured]:
    done = _each(console, resolve.SCENARIOS, resolve.measure, size="resolves", only=only, share=share)
    table = Table(title=f"Submit and settle, {resolve.BLOCK_SECONDS} s a block")
    for column in (
        "scenario",
        "resolved",
        "resolves/s",
        "CPU a resolve: submit",
        "settle",
        "RPC calls a resolve",
        "answer to block p50 / p95",
    ):
        table.add_column(column)
    for item in done:
        cpu = (f"{item.submit_cpu_ms:.1f} ms", f"{item.settle_cpu_ms:.1f} ms")
        count = f"{item.resolved} of {item.scenario.resolves}"
        waited = "{:.0f} / {:.0f} ms".format(*item.to_inclusion_ms) if item.scenario.offered_per_second else ""
        calls = f"{sum(item.rpc_calls_per_resolve.values()):.1f}"
        table.add_row(item.scenario.name, count, f"{item.resolves_per_second:.1f}", *cpu, calls, waited)
    console.print(table)
    return done


def _measure_engine(console: Console, only: str, share: float) -> Sequence[Any]:
    interpreter = _there_is(console, "interpreter", ways.build_interpreter())
    wasmer = _there_is(console, "wasmer", ways.find_wasmer())
    loops = [engine.measure_loop(loop, share=share, interpreter=interpreter, wasmer=wasmer) for loop in LOOPS + CALLS if only in loop.name]
    console.print(_table_of_loops(loops))
    one = engine.measure_pass(share=share)
    console.print(
        f"{one.name}: {one.megabytes_per_second:.1f} MB/s at {one.megabytes:.2f} MB"
        f" ({one.quarter_megabytes_per_second:.1f} MB/s at a quarter of it); what it makes is {one.growth:.2f} times as long;"
        f" the slowest of the odd shapes, {one.slowest_shape}, goes at {one.slowest_megabytes_per_second:.2f} MB/s"
    )
    cost = execution.measure_execution(share=share)
    console.print(
        f"{cost.name}: {cost.in_process_ms:.2f} ms in process, {cost.warm_ms:.2f} ms in a worker's child,"
        f" {cost.fresh_interpreter_ms:.0f} ms in a fresh interpreter; {cost.cold_ms:.0f} ms with {cost.module_kb:.0f} kB to compile"
    )
    rate = execution.measure_rate(share=share)
    if rate.one_core:
        ratio = rate.two_cores / rate.one_core
        console.print(f"{rate.name}: {rate.one_core:.1f} executions/s on one core, {rate.two_cores:.1f} on two, {ratio:.2f} times as many")
    else:
        console.print("[dim]No rate on two cores: there is but one.[/dim]")
    return [*loops, one, cost, rate]


def _there_is(console: Console, name: str, found: Found | str) -> Found | None:
    if isinstance(found, str):
        console.print(f"[dim]No {name} to compare with: {escape(found)}[/dim]")
        return None
    return found


def _measure_builds(console: Console, only: str, share: float) -> Sequence[Any]:
    rounds = max(1, int(3 * share))
    logs.configure(level="error", format="console")
    with tempfile.TemporaryDirectory(prefix="offchainvm-bench-") as folder:
        bench = build.Bench(Path(folder), runtime=load_only(["docker_runtime"]).docker_runtime)
        builds = [bench.measure_build(program, rounds=rounds) for program in build.PROGRAMS if only in program.name]
        table = Table(title="A sandboxed build beside the same cargo command run bare in the same image")
        for column in ("program", "bare", "sandboxed", "times", "added", bench.runtime or "no DOCKER_RUNTIME"):
            table.add_column(column)
        for item in builds:
            ratio, added = item.sandboxed_seconds / item.bare_seconds, item.sandboxed_seconds - item.bare_seconds
            stronger = f"{item.runtime_seconds / item.sandboxed_seconds:.2f}x the sandboxed one" if item.runtime_seconds else ""
            table.add_row(
                item.name, f"{item.bare_seconds:.2f} s", f"{item.sandboxed_seconds:.2f} s", f"{ratio:.2f}x", f"{added:.2f} s", stronger
            )
        console.print(table)
        hit = bench.measure_cache(build.PROGRAMS[0], rounds=rounds)
        console.print(f"A module found: {hit.on_disk_ms:.2f} ms on disk, {hit.from_coordinator_ms:.1f} ms from the local Coordinator;")
        console.print(f"  built: {hit.build_seconds:.2f} s, {hit.build_seconds * 1000 / hit.from_coordinator_ms:.0f} times as long")
        crowd = bench.measure_crowd(build.PROGRAMS[1])
        times = crowd.one_by_one_seconds / crowd.at_once_seconds
        console.print(
            f"{crowd.builds} builds: {crowd.one_by_one_seconds:.1f} s one by one, {crowd.at_once_seconds:.1f} s at once, {times:.2f}x"
        )
    return [*builds, hit, crowd]


def _table_of_loops(loops: Sequence[engine.MeasuredLoop]) -> Table:
    table = Table(title="Time of a loop against plain wasmtime")
    for column in ("loop", "plain", "native fuel", "injected", "wasmer, injected", "wasmi with fuel", "instructions", "same count"):
        table.add_column(column)
    for item in loops:
        measured = (item.native_ratio, item.injected_ratio, item.wasmer_ratio, item.interpreter_ratio)
        ratios = [f"{ratio:.2f}x" if ratio else "" for ratio in measured]
        table.add_row(item.name, f"{item.plain_ms:.0f} ms", *ratios, f"{item.instructions:,}", "yes" if item.same_count else "NO")
    return table


def _measure_monitor(console: Console, only: str, share: float) -> Sequence[monitor.Measured]:
    done = _each(console, monitor.SCENARIOS, monitor.measure, size="blocks", only=only, share=share)
    table = Table(title="The event monitor catching up, blocks per second")
    for column in ("scenario", "one by one", "reading ahead", "ratio", "CPU a block"):
        table.add_column(column)
    for item in done:
        speeds = (f"{item.one_by_one_per_second:.1f}", f"{item.ahead_per_second:.1f}")
        table.add_row(item.scenario.name, *speeds, f"{item.ahead_per_second / item.one_by_one_per_second:.1f}x", f"{item.cpu_ms:.1f} ms")
    console.print(table)
    return done


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


_MEASURES: dict[str, Callable[[Console, str, float], Sequence[Any]]] = {
    "way": _measure_way,
    "resolve": _measure_resolve,
    "engine": _measure_engine,
    "monitor": _measure_monitor,
    "build": _measure_builds,
}

if __name__ == "__main__":
    main()
