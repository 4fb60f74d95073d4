"""What the chart renders is what Kubernetes takes, and what it promises."""

import functools
import json
import os
import unittest
from concurrent.futures import ThreadPoolExecutor

import chart
import helm_python as helm
import kubernetes_validate
import yaml
from chart import MODES, objects, of_kind, render

# The oldest and the newest version that the chart is for and that there are schemas of.
KUBERNETES = ("1.29", "1.37")

# Their schemas are not Kubernetes' own.
CUSTOM = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}

# These options ask for what restricted pods do not get.
EXCEPTED = {"host-path", "host-port", "host-port-everywhere"}

# Which pods see the node, by mode.
NODES = {"daemonset": ["mirror"], "deployment": ["node-setup"], "statefulset": ["node-setup"]}

# An object store behind the cache.
SHARED = {"url": "s3://bucket", "access_key": "${S3_KEY}", "secret_key": "${S3_SECRET}"}

WORKLOADS = {"DaemonSet", "Deployment", "StatefulSet", "Job", "Pod"}


# It reads megabytes of definitions anew for every object that it is given.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


@functools.cache
def validated(text, version):
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@functools.cache
def all_rendered():
    """Mode, names of options, objects and notes of every combination."""
    # Helm is no Python, and lets other threads run.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda combination: rendered(*combination), chart.combinations()))


def rendered(mode, names, values):
    try:
        files, notes = render(values)
    except helm.HelmError as refused:
        raise AssertionError(f"{mode} with {names}: {refused}") from refused
    return mode, names, objects(files), notes


def pods(documents):
    """Kind, name and pod of everything that makes one."""
    for document in documents:
        if document["kind"] in WORKLOADS:
            template = document if document["kind"] == "Pod" else document["spec"]["template"]
            yield document["kind"], document["metadata"]["name"], template


def all_containers(pod):
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def mirror_pod(documents):
    """The pod that serves."""
    name = of_kind(documents, "Service")[0]["metadata"]["name"]
    return next(pod for _, found, pod in pods(documents) if found == name)


class WhatIsRendered(unittest.TestCase):
    def test_helm_finds_nothing_to_complain_about(self):
        for version in KUBERNETES:
            report = helm.lint(chart.CHART, strict=True, kube_version=f"v{version}.0")
            self.assertEqual(report["errors"], [])
            self.assertEqual([m for m in report["messages"] if m["severity"] > 1], [])

    def test_every_combination_is_valid_in_the_oldest_and_the_newest_kubernetes(self):
        count = 0
        for mode, names, documents, _ in all_rendered():
            for document in documents:
                if document["kind"] in CUSTOM:
                    continue
                for version in KUBERNETES:
                    fitting = self.as_old_as(version, document)
                    try:
                        validated(json.dumps(fitting, sort_keys=True), version)
                    except kubernetes_validate.ValidationError as wrong:
                        place = ".".join(map(str, wrong.path))
                        self.fail(f"{mode} with {names}: {document['kind']} {place} in {version}: {wrong.message}")
            count += 1
        print(f"{count} combinations, {validated.cache_info().currsize} different objects ", end="")

    @staticmethod
    def as_old_as(version, document):
        """Without what the chart renders only for a cluster that is new enough."""
        if version == KUBERNETES[0] and document["kind"] == "Service" and "trafficDistribution" in document["spec"]:
            document = {**document, "spec": dict(document["spec"])}
            del document["spec"]["trafficDistribution"]
        return document

    def test_names_are_unique_and_belong_to_the_release(self):
        for mode, names, documents, _ in all_rendered():
            seen = [(document["kind"], document["metadata"]["name"]) for document in documents]
            self.assertEqual(len(seen), len(set(seen)), (mode, names))
            for document in documents:
                labels = document["metadata"]["labels"]
                self.assertEqual(labels["app.kubernetes.io/instance"], "mirror", document)

    def test_selectors_find_their_pods_and_no_others(self):
        for mode, names, documents, _ in all_rendered():
            found = [(name, pod["metadata"]["labels"]) for _, name, pod in pods(documents)]
            serving = mirror_pod(documents)["metadata"]["labels"]
            for document in documents:
                spec = document.get("spec", {})
                if document["kind"] == "Service":
                    selected, wanted = spec["selector"], [serving]
                    if document["metadata"]["name"].endswith("-nodes"):
                        wanted = [labels for _, labels in found if labels["app.kubernetes.io/component"] in NODES[mode]]
                elif document["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
                    selected = spec.get("selector", spec.get("podSelector"))["matchLabels"]
                    wanted = [serving]
                elif document["kind"] in ("DaemonSet", "Deployment", "StatefulSet"):
                    selected = spec["selector"]["matchLabels"]
                    wanted = [spec["template"]["metadata"]["labels"]]
                else:
                    continue
                chosen = [labels for _, labels in found if selected.items() <= labels.items()]
                self.assertEqual(chosen, wanted, (mode, names, document["kind"]))

    def test_every_volume_that_is_mounted_is_there_and_used(self):
        for mode, names, documents, _ in all_rendered():
            claims = [
                claim["metadata"]["name"]
                for stateful in of_kind(documents, "StatefulSet")
                for claim in stateful["spec"].get("volumeClaimTemplates", [])
            ]
            made = {
                (document["kind"], document["metadata"]["name"])
                for document in documents
                if document["kind"] in ("ConfigMap", "Secret", "PersistentVolumeClaim")
            }
            for kind, name, pod in pods(documents):
                volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
                containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
                mounted = {mount["name"] for c in containers for mount in c.get("volumeMounts", [])}
                there = set(volumes) | set(claims if kind == "StatefulSet" else [])
                self.assertEqual(mounted, there, (mode, names, name))
                for volume in volumes.values():
                    self.assert_source(volume, made, (mode, names))

    def assert_source(self, volume, made, context):
        """What a volume is made from comes with the chart, unless the operator named it."""
        others = {"mine", "regcred", "corp", "cache"}
        for kind, (field, name) in {
            "ConfigMap": ("configMap", "name"),
            "Secret": ("secret", "secretName"),
            "PersistentVolumeClaim": ("persistentVolumeClaim", "claimName"),
        }.items():
            if field in volume and volume[field][name] not in others:
                self.assertIn((kind, volume[field][name]), made, context)

    def test_the_serving_pod_is_restricted(self):
        for mode, names, documents, _ in all_rendered():
            pod = mirror_pod(documents)["spec"]
            if not EXCEPTED & set(names):
                self.assertEqual(restricted(pod, pod["containers"]), [], (mode, names))
            self.assertFalse(pod["automountServiceAccountToken"], (mode, names))
            self.assertTrue(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"])

    def test_what_sees_nodes_has_root_but_no_capability_and_only_the_directories_it_needs(self):
        seen = set()
        for mode, names, documents, _ in all_rendered():
            for _, name, pod in pods(documents):
                for container in all_containers(pod):
                    if "node" not in container["name"]:
                        continue
                    seen.add(container["name"])
                    security = container["securityContext"]
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                    self.assertFalse(security["allowPrivilegeEscalation"])
                    self.assertTrue(security["readOnlyRootFilesystem"])
                    mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
                    only_looks = container["name"] == "node-verify"
                    self.assertEqual(mounts, {"/host/etc/containerd": True, "/host/etc/containerd/certs.d": only_looks}, name)
        self.assertEqual(seen, {"node-setup", "node-verify", "node-cleanup"})

    def test_nodes_are_set_up_by_default_in_daemonset_mode_alone(self):
        for mode in MODES:
            documents = objects(render({"mode": mode})[0])
            names = [c["name"] for _, _, pod in pods(documents) for c in all_containers(pod) if "node" in c["name"]]
            self.assertEqual(names, ["node-cleanup", "node-setup", "node-verify"] if mode == "daemonset" else [])

    def test_what_looks_at_nodes_runs_beside_the_mirror_and_knows_it(self):
        for mode, kind in [("daemonset", "DaemonSet"), ("deployment", "DaemonSet"), ("statefulset", "DaemonSet")]:
            values = {"mode": mode, "nodeSetup": {"enabled": True, "metricsPort": 9001}}
            documents = objects(render(values)[0])
            name = "mirror-entrepot" if mode == "daemonset" else "mirror-entrepot-node-setup"
            (pod,) = [pod for found, called, pod in pods(documents) if (found, called) == (kind, name)]
            (container,) = [c for c in all_containers(pod) if c["name"] == "node-verify"]
            self.assertEqual(container.get("restartPolicy"), "Always" if mode == "daemonset" else None)
            self.assertEqual(container["args"], ["node", "verify", "--listen", "[::]:9001"])
            environment = {variable["name"]: variable.get("value") for variable in container["env"]}
            self.assertEqual(environment["ENTREPOT_NODE_MIRROR"], "http://$(NODE_IP):30300")
            self.assertEqual(environment["ENTREPOT_NODE_ROOT"], "/host")

    def test_the_cache_stays_below_what_it_is_given(self):
        for values, expected in [
            ({}, "92160MiB"),
            ({"persistence": {"size": "20Gi"}}, "18432MiB"),
            ({"persistence": {"size": "20G"}}, "17166MiB"),
            ({"persistence": {"size": "1.5Ti"}}, "1415577MiB"),
            ({"persistence": {"hostPath": "/var/lib/entrepot"}}, "102400MiB"),
            ({"mode": "statefulset", "persistence": {"enabled": True}}, "92160MiB"),
            ({"mode": "deployment", "persistence": {"existingClaim": "mine"}}, None),
            ({"config": {"cache": {"max_size": "1GiB"}}}, "1GiB"),
            ({"config": {"cache": {"shared": SHARED}}}, "10240MiB"),
            ({"config": {"cache": {"shared": SHARED}}, "persistence": {"size": "5Gi"}}, "4608MiB"),
            ({"config": {"cache": {"shared": SHARED, "max_size": "1TiB"}}}, "1TiB"),
            ({"config": {"cache": {"min_free": "1GiB"}}}, "92160MiB"),
        ]:
            (config, *_) = of_kind(objects(render(values)[0]), "ConfigMap")
            read = yaml.safe_load(config["data"]["entrepot.yaml"]) or {}
            self.assertEqual(read.get("cache", {}).get("max_size"), expected, values)

    def test_who_comes_through_a_proxy_is_not_one_client(self):
        raised = {"connections": 20000, "requests": 4096}
        for values, expected in [
            ({}, None),
            (chart.OPTIONS["ingress"], raised),
            (chart.OPTIONS["http-route"], raised),
            (chart.merged(chart.OPTIONS["ingress"], {"config": {"clients": {"requests": 9}}}), {**raised, "requests": 9}),
            ({"config": {"clients": {"connections": 1000000}}}, {"connections": 1000000}),
        ]:
            (config, *_) = of_kind(objects(render(values)[0]), "ConfigMap")
            read = yaml.safe_load(config["data"]["entrepot.yaml"]) or {}
            self.assertEqual(read.get("clients"), expected, values)

    def test_the_configuration_is_passed_on_with_every_key(self):
        documented = (chart.ROOT / "docs/configuration.md").read_text()
        config = yaml.safe_load(documented.partition("```yaml\n")[2].partition("```")[0])
        # These two are the chart's own.
        del config["credentials_file"], config["cache"]["directory"]
        (found, *_) = of_kind(objects(render({"config": config})[0]), "ConfigMap")
        self.assertEqual(yaml.safe_load(found["data"]["entrepot.yaml"]), config)

    def test_what_nodes_are_told_is_where_the_mirror_is(self):
        for values, url in [
            ({}, "http://$(NODE_IP):30300"),
            ({"service": {"nodePort": 31000}}, "http://$(NODE_IP):31000"),
            ({"hostPort": {"enabled": True, "port": 5000}}, "http://127.0.0.1:5000"),
            ({"hostPort": {"enabled": True, "hostIP": ""}}, "http://$(NODE_IP):3000"),
            ({"nodeSetup": {"mirror": "https://mirror.example.com"}}, "https://mirror.example.com"),
        ]:
            pod = mirror_pod(objects(render(values)[0]))
            arguments = pod["spec"]["initContainers"][0]["args"]
            self.assertEqual(arguments, ["node", "install", "--root", "/host", "--mirror", url])

    def test_other_directories_of_nodes_are_told_to_both_commands(self):
        directory = "/var/lib/rancher/k3s/agent/etc/containerd"
        values = {"nodeSetup": {"configDirectory": directory, "certsDirectory": f"{directory}/certs.d"}}
        told = ["--certs-dir", f"{directory}/certs.d", "--config-dir", directory]
        documents = objects(render(values)[0])
        for container in [c for _, _, pod in pods(documents) for c in pod["spec"].get("initContainers", [])]:
            if container["name"] == "node-verify":
                environment = {variable["name"]: variable.get("value") for variable in container["env"]}
                told_by_name = [environment["ENTREPOT_NODE_CERTS_DIR"], environment["ENTREPOT_NODE_CONFIG_DIR"]]
                self.assertEqual(told_by_name, told[1::2])
            else:
                self.assertEqual(container["args"][-4:], told)

    def test_only_what_is_not_reloaded_restarts_the_pods(self):
        def template(values):
            return mirror_pod(objects(render(values)[0]))

        def with_config(config):
            return template({"config": config})

        plain = with_config({})
        self.assertEqual(plain, with_config({"default_upstream": "quay.io"}))
        self.assertNotEqual(plain, with_config({"listen": [{"address": "0.0.0.0:3000"}]}))
        self.assertNotEqual(plain, with_config({"cache": {"min_free": "5%"}}))
        self.assertNotEqual(plain, with_config({"cache": {"shared": SHARED}}))
        self.assertNotEqual(plain, with_config({"cache": {"scrub_every": "never"}}))
        self.assertNotEqual(plain, with_config({"clients": {"connections": 50}}))
        self.assertEqual(plain, with_config({"clients": {"requests": 50}}))
        some = template({"credentials": {"a": {"username": "b", "password": "c"}}})
        self.assertEqual(some, template({"credentials": {"a": {"username": "b", "password": "d"}}}))
        first = template({"ca": {"bundle": "a"}})
        self.assertNotEqual(first, template({"ca": {"bundle": "b"}}))

    def test_listeners_have_ports_on_pod_and_service(self):
        config = {"listen": [{"address": "[::]:8080"}, {"address": "127.0.0.1:5001", "upstream": "quay.io"}]}
        documents = objects(render({"config": config})[0])
        ports = mirror_pod(documents)["spec"]["containers"][0]["ports"]
        self.assertEqual([(p["name"], p["containerPort"]) for p in ports], [("http", 8080), ("port-5001", 5001)])
        service = of_kind(documents, "Service")[0]["spec"]["ports"]
        self.assertEqual(
            [(p["port"], p["targetPort"], p.get("nodePort")) for p in service],
            [(3000, "http", 30300), (5001, "port-5001", None)],
        )

    def test_pull_secrets_become_part_of_the_configuration(self):
        values = {
            "config": {"upstreams": {"ghcr.io": {"realms": ["a"]}}},
            "registryPullSecrets": [{"secret": "regcred", "upstreams": ["ghcr.io"]}],
        }
        documents = objects(render(values)[0])
        config = yaml.safe_load(of_kind(documents, "ConfigMap")[0]["data"]["entrepot.yaml"])
        file = "/etc/entrepot-pull-secrets/regcred/.dockerconfigjson"
        self.assertEqual(
            config["upstreams"], {"ghcr.io": {"realms": ["a"], "credentials": {"docker_config": file}}}
        )

    def test_notes_name_the_next_command(self):
        for mode, names, documents, notes in all_rendered():
            name = of_kind(documents, "Service")[0]["metadata"]["name"]
            self.assertIn(f"rollout status {mode}/{name}", notes, names)
            self.assertIn("helm test mirror --namespace registry", notes)


def restricted(pod, containers):
    """Where `containers` of `pod` are not what the restricted pod security standard allows."""
    problems = []
    security = pod["securityContext"]
    if not security["runAsNonRoot"] or security["runAsUser"] == 0:
        problems.append("runs as root")
    if security["seccompProfile"] != {"type": "RuntimeDefault"}:
        problems.append("seccompProfile")
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            problems.append(field)
    for container in containers:
        own = container["securityContext"]
        if own["allowPrivilegeEscalation"] or own["capabilities"] != {"drop": ["ALL"]}:
            problems.append("privileges")
        problems += ["hostPort" for port in container["ports"] if "hostPort" in port]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        problems += [v["name"] for v in pod["volumes"] if "hostPath" in v and v["name"] in mounted]
    return problems
