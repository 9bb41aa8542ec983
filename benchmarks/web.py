"""What a page costs with many jobs: the list and one job, beside the same with few (``python benchmarks/web.py [JOBS]``).

One Redis, one process, no network but loopback; each number is the least of twenty looks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from offchainvm.devnet.embedded_redis import EmbeddedRedis
from offchainvm.jobs.record import Stage
from offchainvm.jobs.store import JobStore
from offchainvm.models import CodeSource, CompileTask, ResourceLimits
from offchainvm.web.pages import Pages

LOOKS = 20
FEW = 100
LIMITS = ResourceLimits(max_instructions=10**10, max_memory_mb=128, max_execution_seconds=60)


def seed(redis: Redis, numbers: range) -> None:
    """Queued jobs of fifty repositories."""
    store = JobStore(redis)
    for number in numbers:
        name = f"tests/repository-{number % 50}"
        source = CodeSource(repo=f"https://github.com/{name}", commit="main")
        task = CompileTask(request_id=number, data_id=f"{number:064x}", code_source=source, input_data="{}")
        store.accept(task, stage=Stage.COMPILE, limits=LIMITS, repository=name)


def least_ms(look: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(LOOKS):
        began = time.perf_counter()
        look()
        best = min(best, time.perf_counter() - began)
    return best * 1000


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with EmbeddedRedis() as server, Redis.from_url(server.url) as redis:
        pages = Pages(redis, state_dir=Path("/nonexistent"))
        looks: dict[str, tuple[str, dict[str, str]]] = {
            "list, first page": ("/", {}),
            "list, the last page": ("/", {}),
            "by state": ("/", {"state": "queued"}),
            "by repository": ("/", {"find": "tests/repository-7"}),
            "by request id": ("/", {"find": "7"}),
            "by the beginning of a data id": ("/", {"find": "00000abc"}),
            "one job": (f"/jobs/{7:064x}", {}),
            "queues": ("/queues", {}),
        }
        found: dict[str, list[float]] = {name: [] for name in looks}
        for numbers in (range(FEW), range(FEW, many)):
            seed(redis, numbers)
            for name, (path, query) in looks.items():
                last = {"page": str(numbers.stop // 25 - 1)} if name.endswith("last page") else query
                found[name].append(least_ms(lambda path=path, last=last: pages.answer(path, last)))  # type: ignore[misc]
    print(f"| page | {FEW} jobs | {many:,} jobs | ratio |\n|---|---|---|---|")
    for name, (few, lots) in found.items():
        print(f"| {name} | {few:.1f} ms | {lots:.1f} ms | {lots / few:.1f} |")


if __name__ == "__main__":
    main()
