"""The chart, as Helm sees it."""

import itertools
from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "entrepot"
GOLDEN = Path(__file__).resolve().parent / "golden"

MODES = ("daemonset", "deployment", "statefulset")

# What can be asked for beside the mode.
CREDENTIALS = {"ghcr.io/my-org": {"username": "me", "password": "p:a#s's"}}
OPTIONS = {
    "fullname": {"fullnameOverride": "images", "podLabels": {"team": "a"}, "podAnnotations": {"b": "c"}},
    "digest": {"image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "regcred"}]},
    "config": {
        "config": {
            "listen": [{"address": "[::]:3000"}, {"address": "0.0.0.0:5001"}],
            "default_upstream": "quay.io",
            "upstreams": {"registry.example.com": {"endpoints": ["http://10.0.0.5:5000"]}},
        }
    },
    "credentials": {"credentials": CREDENTIALS},
    "existing-secret": {"existingSecret": "mine", "existingSecretKey": "registries"},
    "pull-secrets": {"registryPullSecrets": [{"secret": "regcred", "upstreams": ["docker.io", "ghcr.io"]}]},
    "proxy": {"proxy": {"httpProxy": "http://p:1", "httpsProxy": "http://p:1", "noProxy": "10.0.0.0/8"}},
    "ca-bundle": {"ca": {"bundle": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"}},
    "ca-secret": {"ca": {"existingSecret": "corp", "key": "root.pem"}},
    "ca-config-map": {"ca": {"existingConfigMap": "corp"}},
    "traffic": {"service": {"trafficDistribution": "PreferClose", "externalTrafficPolicy": "Local"}},
    "load-balancer": {"service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}}},
    "cluster-ip": {"service": {"type": "ClusterIP"}, "nodeSetup": {"mirror": "https://mirror.example.com"}},
    "host-port": {"hostPort": {"enabled": True}},
    "host-port-everywhere": {"hostPort": {"enabled": True, "port": 80, "hostIP": ""}},
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
            "hosts": [{"host": "mirror.example.com"}, {"host": "m", "paths": [{"path": "/v2", "pathType": "Exact"}]}],
            "tls": [{"secretName": "tls", "hosts": ["mirror.example.com"]}],
        }
    },
    "http-route": {"httproute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["m.example.com"]}},
    "claim": {"persistence": {"enabled": True, "storageClass": "fast", "annotations": {"helm.sh/resource-policy": "keep"}}},
    "shared-claim": {"persistence": {"enabled": True, "storageClass": "-", "accessModes": ["ReadWriteMany"]}},
    "existing-claim": {"persistence": {"existingClaim": "cache"}},
    "host-path": {"persistence": {"hostPath": "/var/lib/entrepot"}},
    "node-setup": {"nodeSetup": {"enabled": True, "extraArgs": ["--registry", "docker.io"]}},
    "no-node-setup": {"nodeSetup": {"enabled": False}},
    "no-clean-up": {"nodeSetup": {"cleanup": {"enabled": False}}},
    "monitoring": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "relabelings": [{"action": "keep"}]},
            "prometheusRule": {"enabled": True, "rules": [{"alert": "Mine", "expr": "1"}]},
        },
        "grafanaDashboard": {"enabled": True, "namespace": "monitoring"},
    },
    "disruption": {"podDisruptionBudget": {"enabled": True}, "replicaCount": 3},
    "disruption-share": {"podDisruptionBudget": {"enabled": True, "minAvailable": "50%"}},
    "network-policy": {
        "networkPolicy": {"enabled": True, "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "egressPorts": [{"port": 5000}]}
    },
    "placement": {
        "priorityClassName": "high",
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
    },
    "own-user": {"podSecurityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}},
    "extras": {
        "extraEnvVars": [{"name": "A", "value": "b"}],
        "extraEnvFrom": [{"secretRef": {"name": "tokens"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraArgs": ["--log-format=json"],
        "updateStrategy": {"type": "RollingUpdate"},
        "serviceAccount": {"create": False, "name": "other"},
    },
}

# What does not go together, by mode and option and by options: the chart says so.
REFUSED_IN = {("daemonset", "claim"), ("daemonset", "shared-claim"), ("statefulset", "existing-claim")}
EXCLUSIVE = [
    {"credentials", "existing-secret"},
    {"ca-bundle", "ca-secret"},
    {"ca-bundle", "ca-config-map"},
    {"ca-secret", "ca-config-map"},
]


def render(values, name="mirror", namespace="registry"):
    """Objects by file, and the notes, of a release that is installed with `values`."""
    with helm.Chart.load(CHART) as chart:
        # Rendering alone does not hold values against the schema; installing does.
        chart.validate_schema(values)
        files = chart.render(values, name=name, namespace=namespace, is_install=True)
    notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
    return {path: text for path, text in files.items() if path.endswith(".yaml")}, notes


def objects(files):
    """What the cluster would get, in a fixed order."""
    return [document for _, text in sorted(files.items()) for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def merged(*parts):
    """Values that say what all of `parts` say."""
    result = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def combinations():
    """Every mode with no option, with each, and with every two of them that go together."""
    for mode in MODES:
        names = [name for name in OPTIONS if (mode, name) not in REFUSED_IN]
        for count in (0, 1, 2):
            for chosen in itertools.combinations(names, count):
                if set(chosen) not in EXCLUSIVE:
                    yield mode, chosen, merged({"mode": mode}, *(OPTIONS[name] for name in chosen))
