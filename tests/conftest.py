"""How the tests are shared out when several processes run them (`pytest -n`), and how what they measured is told."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# These tests share one costly set-up.
TOGETHER = ("tests/integration/cli/",)
# The longest file, which makes the images; then what needs none of them. And at last many short ones, of which each process gets its share.
FIRST, LAST = ("tests/acceptance/test_compose.py", "tests/integration/bridge/"), ("tests/unit/",)
# These keep the processors busy, the others wait more than they compute.
BUSY = ("tests/integration/compiler/",)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist publishes no types
    """Tests of one file stay together, since they share fixtures; so do those of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Busy files take turns with the others, since side by side they use the machine best."""
    files = dict[str, list[pytest.Item]]()
    for item in items:
        files.setdefault(_file(item.nodeid), []).append(item)
    first, last = ([file for start in starts for file in files if file.startswith(start)] for starts in (FIRST, LAST))
    between = [file for file in files if file not in {*first, *last}]
    turns = zip_longest(*([file for file in between if file.startswith(BUSY) is busy] for busy in (False, True)))
    items[:] = chain.from_iterable(files[file] for file in (*first, *chain.from_iterable(turns), *last) if file is not None)


# Not by marks and `--dist loadgroup`: xdist 3.8 writes them where pytest 9.2 does not look.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With -v: what tests recorded of their cases (`record_property`), which is told and never judged."""
    if terminalreporter.verbosity > 0:
        for report in terminalreporter.getreports("passed"):
            if report.user_properties:
                told = ", ".join(f"{name} {value}" for name, value in report.user_properties)
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {told}")
