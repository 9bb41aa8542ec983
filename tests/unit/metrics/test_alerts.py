"""The rules and the dashboard: what they ask for exists, Prometheus can read it, and each alert fires when it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from offchainvm import metrics
from offchainvm.metrics import Histogram

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "offchainvm.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def promtool(*words: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        assert not os.environ.get("CI"), "CI must have promtool (.ci/run installs it)"
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def shown_names() -> set[str]:
    """Every name that a process may show."""
    names = set(metrics.ALL)
    for one in metrics.ALL.values():
        if isinstance(one, Histogram):
            names |= {f"{one.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def test_every_metric_that_rules_and_dashboard_name_is_in_the_table() -> None:
    asked = re.findall(r"\boffchainvm_\w+", RULES.read_text() + " ".join(EXPRESSIONS))
    assert asked
    assert set(asked) <= shown_names()


def test_each_alert_fires_at_its_threshold_and_not_below() -> None:
    promtool("test", "rules", str(DEPLOY / "prometheus" / "rules_test.yml"))
    tested = (DEPLOY / "prometheus" / "rules_test.yml").read_text()
    assert all(name in tested for name in re.findall(r"- alert: (\w+)", RULES.read_text()))


def test_prometheus_takes_the_configuration() -> None:
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


def test_prometheus_takes_what_the_page_says_of_hosts_and_of_an_alertmanager(tmp_path: Path) -> None:
    [hosts, alertmanager] = re.findall(r"```yaml\n(.*?)```", (DEPLOY.parent / "docs" / "observe.md").read_text(), re.DOTALL)
    shutil.copy(RULES, tmp_path)
    file = tmp_path / "prometheus.yml"
    file.write_text((DEPLOY / "prometheus" / "prometheus.yml").read_text() + hosts + alertmanager)
    promtool("check", "config", str(file))
    assert re.search("job_name: offchainvm.*-hosts", hosts)


def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(EXPRESSIONS)]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    promtool("check", "rules", str(file))


def test_panels_have_titles_and_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["title"] for panel in DASHBOARD["panels"])
