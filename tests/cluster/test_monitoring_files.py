"""Checks what is there for Prometheus and Grafana with Prometheus' own tools, and against what ovray measures."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from ray._private import ray_constants

from ovray.driver import metrics_export as export
from tests.cluster.files import CLUSTER, REPOSITORY, of_kind, ray_cluster_specs

PROMETHEUS = CLUSTER / "prometheus"
DASHBOARD = json.loads((CLUSTER / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]

#: Where `.ci/run` unpacks it; Debian's package `prometheus` would also start a server.
UNPACKED = REPOSITORY / "build" / "prometheus" / "usr" / "bin" / "promtool"

#: What Ray's exporter puts before the names of all metrics.
PREFIX = "ray_"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool") or (str(UNPACKED) if UNPACKED.exists() else None)
    if found is None:
        pytest.skip("promtool is not installed (it is in Debian's package prometheus)")
    return found


def check(promtool: str, what: str, file: Path) -> None:
    done = subprocess.run([promtool, "check", what, file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_file(promtool: str) -> None:
    check(promtool, "config", PROMETHEUS / "prometheus.yml")


def test_prometheus_takes_the_file_for_kubernetes(promtool: str, tmp_path: Path) -> None:
    fields = yaml.safe_load((PROMETHEUS / "prometheus-kubernetes.yml").read_text())
    (job,) = fields["scrape_configs"]
    # Debian builds Prometheus without this way to find what to scrape, and with all others.
    (discovery,) = job.pop("kubernetes_sd_configs")
    assert discovery == {"role": "pod", "namespaces": {"names": [of_kind("Namespace")["metadata"]["name"]]}}
    job["file_sd_configs"] = [{"files": ["pods.json"]}]
    rest = tmp_path / "prometheus.yml"
    rest.write_text(yaml.safe_dump(fields))

    check(promtool, "config", rest)


def test_prometheus_keeps_the_port_that_the_pods_name() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus-kubernetes.yml").read_text())["scrape_configs"]
    (port,) = [
        rule["regex"] for rule in job["relabel_configs"] if "port_name" in rule.get("source_labels", [""])[0]
    ]
    for _, spec in ray_cluster_specs():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (ray,) = group["template"]["spec"]["containers"]
            ports = {one["name"]: one["containerPort"] for one in ray["ports"]}
            assert str(ports[port]) == group["rayStartParams"]["metrics-export-port"]


def test_every_file_for_prometheus_is_checked_here() -> None:
    assert {file.name for file in PROMETHEUS.iterdir()} == {"prometheus.yml", "prometheus-kubernetes.yml"}


def test_prometheus_reads_the_list_of_nodes_that_ray_keeps() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    (files,) = [found["files"] for found in job["file_sd_configs"]]

    assert [Path(file).name for file in files] == [ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE]


def test_prometheus_takes_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"check:{number}", "expr": filled_in(text)} for number, (_, text) in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    check(promtool, "rules", file)


@pytest.mark.parametrize(("panel", "text"), EXPRESSIONS)
def test_an_expression_of_the_dashboard_can_be_read(panel: str, text: str) -> None:
    promql_parser.parse(filled_in(text))


def test_a_slip_of_the_pen_would_be_noticed() -> None:
    with pytest.raises(ValueError, match=r"unclosed|unexpected|invalid"):
        promql_parser.parse(filled_in(EXPRESSIONS[0][1]).rstrip(")"))


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= set(DASHBOARD)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert panel["description"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables


def test_no_two_panels_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def names_in(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}ovray_\w+", text))


def filled_in(expression: str) -> str:
    """Put something in the place of Grafana's variables, as Grafana does before it asks."""
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "1m"))


def test_the_dashboard_shows_what_ovray_measures_and_nothing_else() -> None:
    known = {f"{PREFIX}{name}_total" for name in export.COUNTERS} | {f"{PREFIX}{name}" for name in export.GAUGES}
    for part in ("bucket", "sum", "count"):
        known |= {f"{PREFIX}{name}_{part}_total" for name in export.HISTOGRAMS}
    shown = names_in(json.dumps(DASHBOARD))

    assert shown <= known, sorted(shown - known)
    families = {name.removeprefix(PREFIX) for name in shown}
    missing = [
        name
        for name in (*export.COUNTERS, *export.GAUGES, *export.HISTOGRAMS)
        if not any(family.startswith(name) for family in families)
    ]
    assert not missing
    labels = set(re.findall(r"(\w+)=~?\\?\"", " ".join(text for _, text in EXPRESSIONS)))
    grouped = {
        label
        for _, text in EXPRESSIONS
        for names in re.findall(r"by \((.+?)\)", text)
        for label in names.split(", ")
    }
    assert labels | grouped <= {*export.LABELS, "le", "state"}
