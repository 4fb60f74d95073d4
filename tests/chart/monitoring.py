"""Rules and dashboard ask for metrics that there are."""

import json
import re
import unittest

import chart
import promql_parser
import yaml
from chart import ROOT, objects, of_kind, render

# Counters and the build get a suffix when they are written, histograms have three names.
SUFFIXES = ("", "_total", "_info", "_bucket", "_sum", "_count")


def known_metrics():
    """The names that the program registers."""
    names = set()
    for file in (ROOT / "src" / "metrics").glob("*.rs"):
        names |= set(re.findall(r'\.register\(\s*"(\w+)"', file.read_text()))
    assert "requests" in names, "metrics are registered as they were"
    return {f"entrepot_{name}{suffix}" for name in names for suffix in SUFFIXES}


def rules():
    values = {
        "mode": "statefulset",
        "persistence": {"enabled": True},
        "nodeSetup": {"enabled": True},
        "metrics": {"prometheusRule": {"enabled": True}},
    }
    (rule,) = of_kind(objects(render(values)[0]), "PrometheusRule")
    return rule["spec"]["groups"][0]["rules"]


def panels():
    return json.loads((chart.CHART / "dashboards" / "entrepot.json").read_text())["panels"]


class Monitoring(unittest.TestCase):
    def expressions(self):
        for rule in rules():
            yield rule.get("alert", rule.get("record")), rule["expr"]
        for panel in panels():
            for target in panel["targets"]:
                yield panel["title"], target["expr"].replace("$__rate_interval", "5m")

    def test_every_expression_is_promql(self):
        for name, expression in self.expressions():
            with self.subTest(name):
                promql_parser.parse(expression)

    def test_every_metric_exists(self):
        known = known_metrics()
        for name, expression in self.expressions():
            for metric in re.findall(r"\bentrepot_\w+", expression):
                with self.subTest(name):
                    self.assertTrue(metric in known, f"nothing registers {metric}")

    def test_every_alert_says_what_is_wrong(self):
        alerts = [rule for rule in rules() if "alert" in rule]
        self.assertGreaterEqual(len(alerts), 6)
        for alert in alerts:
            self.assertIn(alert["labels"]["severity"], ("info", "warning", "critical"))
            self.assertTrue(alert["annotations"]["summary"] and alert["annotations"]["description"], alert)

    def test_the_monitor_finds_the_services_that_have_its_ports(self):
        for mode in chart.MODES:
            values = {"mode": mode, "nodeSetup": {"enabled": True}, "metrics": {"serviceMonitor": {"enabled": True}}}
            documents = objects(render(values)[0])
            (monitor,) = of_kind(documents, "ServiceMonitor")
            selector = monitor["spec"]["selector"]
            (expression,) = selector["matchExpressions"]
            found = [
                service["metadata"]["name"]
                for service in of_kind(documents, "Service")
                if selector["matchLabels"].items() <= service["metadata"]["labels"].items()
                and service["metadata"]["labels"].get(expression["key"]) in expression["values"]
                for endpoint in monitor["spec"]["endpoints"]
                if endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
            ]
            # Prometheus calls a job by its service: what the rules ask for.
            self.assertEqual(found, ["mirror-entrepot", "mirror-entrepot-nodes"], mode)

    def test_a_disk_that_is_full_is_told_wherever_the_cache_is(self):
        for values in [
            {},
            {"persistence": {"hostPath": "/var/lib/entrepot"}},
            {"mode": "deployment", "persistence": {"enabled": True}},
            {"mode": "deployment", "persistence": {"existingClaim": "mine"}},
        ]:
            values = {**values, "metrics": {"prometheusRule": {"enabled": True}}}
            (rule,) = of_kind(objects(render(values)[0]), "PrometheusRule")
            alerts = [rule for rule in rule["spec"]["groups"][0]["rules"] if rule.get("alert") == "EntrepotDiskFull"]
            self.assertEqual(len(alerts), 1, values)
            promql_parser.parse(alerts[0]["expr"])

    def test_a_rule_asks_the_job_that_reports_the_metric(self):
        (alert,) = [rule for rule in rules() if rule.get("alert") == "EntrepotNodeNotUsingMirror"]
        self.assertIn('job="mirror-entrepot-nodes"', alert["expr"])
        self.assertIn('namespace="registry"', alert["expr"])

    def test_the_dashboard_is_delivered_as_it_is(self):
        (delivered,) = [
            config for config in of_kind(objects(render({"grafanaDashboard": {"enabled": True}})[0]), "ConfigMap")
            if config["metadata"]["name"].endswith("-dashboard")
        ]
        self.assertEqual(json.loads(delivered["data"]["entrepot.json"])["panels"], panels())
        self.assertEqual(delivered["metadata"]["labels"]["grafana_dashboard"], "1")
