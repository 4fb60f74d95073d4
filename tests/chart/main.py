"""Tests of the chart; see `run` beside this file."""

import sys
import tomllib
import unittest

import chart
import readme
import yaml
from chart import GOLDEN, MODES

# What the golden files show of each mode.
GOLDEN_VALUES = {
    "daemonset": {
        "mode": "daemonset",
        "credentials": chart.CREDENTIALS,
        "config": {"default_upstream": "docker.io", "manifests": {"ttl": "5m"}},
    },
    "deployment": {
        "mode": "deployment",
        "persistence": {"enabled": True},
        "podDisruptionBudget": {"enabled": True},
        "ingress": {"enabled": True, "hosts": [{"host": "mirror.example.com"}]},
    },
    "statefulset": {
        "mode": "statefulset",
        "replicaCount": 3,
        "persistence": {"enabled": True},
        "nodeSetup": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    },
}


def golden(mode):
    files, notes = chart.render(GOLDEN_VALUES[mode])
    shown = [f"# {path}\n{text.strip()}\n" for path, text in sorted(files.items()) if text.strip()]
    return "---\n".join(shown), notes.strip() + "\n"


def regenerate():
    GOLDEN.mkdir(exist_ok=True)
    for mode in MODES:
        manifests, notes = golden(mode)
        (GOLDEN / f"{mode}.yaml").write_text(manifests)
        (GOLDEN / f"{mode}.txt").write_text(notes)
    text = readme.expected()
    (chart.CHART / "README.md").write_text(text)


class WhatIsWritten(unittest.TestCase):
    def test_the_golden_files_are_what_helm_renders(self):
        for mode in MODES:
            with self.subTest(mode):
                manifests, notes = golden(mode)
                self.assertEqual((GOLDEN / f"{mode}.yaml").read_text(), manifests, "tests/chart/run --regenerate")
                self.assertEqual((GOLDEN / f"{mode}.txt").read_text(), notes, "tests/chart/run --regenerate")

    def test_the_readme_lists_the_values(self):
        self.assertEqual(readme.current(), readme.expected(), "tests/chart/run --regenerate")

    def test_chart_and_program_are_of_one_version(self):
        program = tomllib.loads((chart.ROOT / "Cargo.toml").read_text())["package"]["version"]
        described = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
        self.assertEqual(described["appVersion"], program)

    def test_every_value_is_explained_or_says_it_itself(self):
        known = {
            "name", "key", "port", "labels", "annotations", "className", "enabled", "interval", "scrapeTimeout", "create",
        }
        for key, _, text in readme.entries():
            plain = key.split(".")[-1] in known or key.count(".") > 1 or key in PLAIN
            self.assertTrue(text or plain, f"{key} has no comment in values.yaml")

    def test_every_value_is_in_the_schema_and_the_other_way_round(self):
        values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
        schema = yaml.safe_load((chart.CHART / "values.schema.json").read_text())
        same_keys(self, values, schema, "values")


PLAIN = {
    "replicaCount", "nameOverride", "fullnameOverride", "image.pullPolicy", "persistence.accessModes", "nodeSelector",
    "affinity", "topologySpreadConstraints", "podAnnotations", "podLabels", "terminationGracePeriodSeconds",
    "updateStrategy", "extraEnvFrom", "extraVolumes", "extraVolumeMounts", "extraArgs", "securityContext",
    "service.internalTrafficPolicy", "service.externalTrafficPolicy", "ca.existingSecret", "httproute.hostnames",
    "podDisruptionBudget.minAvailable", "podDisruptionBudget.maxUnavailable", "resources.requests",
}


def same_keys(case, values, schema, path):
    if schema.get("additionalProperties") is not False:
        return
    known = set(schema["properties"]) - {"global", "claims", "requests", "limits"}
    case.assertEqual(set(values) - {"requests", "limits"}, known, path)
    for key, value in values.items():
        if isinstance(value, dict) and key in schema["properties"]:
            same_keys(case, value, schema["properties"][key], f"{path}.{key}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--regenerate"]:
        regenerate()
        sys.exit()
    import mistakes
    import monitoring
    import rendered

    suite = unittest.TestSuite()
    for tests in (WhatIsWritten, rendered.WhatIsRendered, mistakes.Mistakes, monitoring.Monitoring):
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(tests))
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    bad = len({test.id() for test, _ in result.failures + result.errors})
    # The line that tests/run adds up.
    verdict = "FAILED" if bad else "ok"
    print(f"test result: {verdict}. {result.testsRun - bad} passed; {bad} failed; 0 ignored")
    sys.exit(bool(bad))
