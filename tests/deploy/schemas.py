"""The shapes of files whose own reader is not packaged, as its documentation gives them."""


def record(properties, required=()):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
URL = {"type": "string", "pattern": r"^https?://[a-z0-9.:-]+$"}
HOST = {"type": "string", "pattern": r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9./-]+)?$"}

# docs.k3s.io, "Private Registry Configuration".
REGISTRIES = record(
    {
        "mirrors": {
            "type": "object",
            "propertyNames": {"pattern": r"^(\*|[a-z0-9.-]+(:[0-9]+)?)$"},
            "additionalProperties": record(
                {
                    "endpoint": {"type": "array", "items": URL, "minItems": 1},
                    "rewrite": {"type": "object", "additionalProperties": TEXT},
                },
                ["endpoint"],
            ),
        },
        "configs": {
            "type": "object",
            "additionalProperties": record(
                {
                    "auth": record({"username": TEXT, "password": TEXT, "auth": TEXT, "identity_token": TEXT}),
                    "tls": record({"ca_file": TEXT, "cert_file": TEXT, "key_file": TEXT, "insecure_skip_verify": FLAG}),
                }
            ),
        },
    },
    ["mirrors"],
)

# k3d.io, "Using Config Files", the parts that are used.
K3D = record(
    {
        "apiVersion": {"const": "k3d.io/v1alpha5"},
        "kind": {"const": "Simple"},
        "metadata": record({"name": TEXT}, ["name"]),
        "servers": {"type": "integer", "minimum": 1},
        "agents": {"type": "integer", "minimum": 0},
        "network": TEXT,
        "registries": record({"use": {"type": "array", "items": TEXT}, "config": TEXT}),
    },
    ["apiVersion", "kind"],
)

# kubernetes.io, "kubeadm Configuration (v1beta4)", the parts that are used.
KUBEADM = record(
    {
        "apiVersion": {"const": "kubeadm.k8s.io/v1beta4"},
        "kind": {"const": "ClusterConfiguration"},
        "imageRepository": HOST,
        "dns": record({"imageRepository": HOST, "imageTag": TEXT}),
    },
    ["apiVersion", "kind"],
)

# kubespray.io, "containerd".
KUBESPRAY = {
    "type": "array",
    "minItems": 1,
    "items": record(
        {
            "prefix": HOST,
            "server": URL,
            "mirrors": {
                "type": "array",
                "minItems": 1,
                "items": record(
                    {
                        "host": URL,
                        "capabilities": {"type": "array", "items": {"enum": ["pull", "resolve", "push"]}},
                        "skip_verify": FLAG,
                        "override_path": FLAG,
                        "ca": TEXT,
                    },
                    ["host", "capabilities"],
                ),
            },
        },
        ["prefix", "mirrors"],
    ),
}

# docs.docker.com, "buildkitd.toml", the table `registry`.
BUILDKIT = record(
    {
        "registry": {
            "type": "object",
            "propertyNames": HOST,
            "additionalProperties": record(
                {
                    "mirrors": {"type": "array", "items": HOST, "minItems": 1},
                    "http": FLAG,
                    "insecure": FLAG,
                    "ca": {"type": "array", "items": TEXT},
                    "keypair": {"type": "array", "items": record({"key": TEXT, "cert": TEXT}, ["key", "cert"])},
                }
            ),
        },
    },
    ["registry"],
)
