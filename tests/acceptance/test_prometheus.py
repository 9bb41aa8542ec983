"""A real Prometheus looks at a real fleet: by deploy's rules, and with every expression of the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prometheus
import pytest
from prometheus import Prometheus
from world import World, until

from offchainvm import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
ROLES = ("bridge", "monitor", "compile", "execute", "execute", "resolve")
PANELS = json.loads((DEPLOY / "grafana" / "offchainvm.json").read_text())["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULES = (DEPLOY / "prometheus" / "rules.yml").read_text()


@pytest.fixture(scope="module")
def world(make_world: Callable[..., Any], builder_image: None) -> Iterator[World]:
    with make_world(roles=ROLES, role_settings={"bridge": {"ENABLE_EVENT_MONITOR": "false"}}) as world:
        yield world


@pytest.fixture(scope="module")
def targets(world: World) -> set[str]:
    """Where each process shows its metrics."""
    return {world.stack.health_url(name).removeprefix("http://") for name in world.stack.processes if name.partition("-")[0] in ROLES}


@pytest.fixture(scope="module")
def watched(world: World, targets: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen the fleet before and after a build, an execution and a resolve."""
    with prometheus.running(tmp_path_factory.mktemp("prometheus"), sorted(targets)) as one:
        until(lambda: one.query("offchainvm_queue_jobs"), "a first look at the bridge")
        request = world.ask("seen", "by Prometheus", commit=world.publish("seen"))
        world.assert_answered_once(request, "by Prometheus")
        until(lambda: one.query('offchainvm_jobs_settled_total{verdict="accepted"} == 1'), "the job to be seen")
        yield one


def test_every_process_is_a_target_that_is_up(watched: Prometheus, targets: set[str]) -> None:
    assert len(targets) == len(ROLES)
    until(lambda: watched.targets() == dict.fromkeys(targets, "up"), lambda: f"all targets to be up, not {watched.targets()}")


def test_every_rule_is_evaluated_and_a_healthy_fleet_fires_none(watched: Prometheus) -> None:
    def quiet() -> set[str]:
        return {name for name, rule in watched.rules().items() if (rule["health"], rule["state"]) == ("ok", "inactive")}

    names = set(re.findall(r"- alert: (\w+)", RULES))
    until(lambda: quiet() == names, lambda: f"all of {names} to be evaluated and quiet, not only {quiet()}")


@pytest.mark.parametrize("selector", sorted(set(re.findall(r"\boffchainvm_\w+(?:\{[^}]*\})?", RULES))))
def test_what_a_rule_looks_at_is_there(watched: Prometheus, selector: str) -> None:
    until(lambda: watched.query(selector), f"a series for {selector}")


def test_every_series_of_the_page_is_shown_but_of_what_did_not_happen(watched: Prometheus) -> None:
    def missing() -> set[str]:
        seen = set(watched.ask("label/__name__/values"))
        return {name for name, one in metrics.ALL.items() if f"{name}_count" not in seen and name not in seen}

    until(lambda: missing() == {"offchainvm_stage_repeats_total"}, lambda: f"every series to be shown, but {missing()} are not")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_panel_of_the_dashboard_shows_series_with_the_labels_that_it_names(watched: Prometheus, expression: str) -> None:
    series = until(lambda: watched.query(expression), f"series for {expression}")
    named = re.search(r"\bby \(([^)]*)\)", expression)
    wanted = {label.strip() for label in named[1].split(",")} - {"le"} if named else set()
    assert {frozenset(labels) for labels in series} == {frozenset(wanted)}
