"""Kubernetes without Helm."""

import kubernetes_validate
import yaml

import nodes
import rig
from rig import DEPLOY, same

VERSIONS = ("1.31", "1.37")


def kubernetes(world):
    manifests = list(yaml.safe_load_all((DEPLOY / "kubernetes/entrepot.yaml").read_text()))
    for version in VERSIONS:

        def valid(version=version):
            for manifest in manifests:
                try:
                    kubernetes_validate.validate(manifest, version, strict=True)
                except Exception as error:
                    raise rig.Failure(f"{manifest['kind']}: {error}") from error

        world.check(f"entrepot.yaml is valid for Kubernetes {version}, strictly", valid)
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    world.check(
        "the configuration is accepted by the mirror",
        lambda: rig.check_configuration(by_kind["ConfigMap"]["data"]["entrepot.yaml"]),
    )
    credentials = world.scratch / "credentials.yaml"
    credentials.write_text(by_kind["Secret"]["stringData"]["credentials.yaml"])
    world.check(
        "the credentials are accepted by the mirror",
        lambda: rig.check_configuration("", {"ENTREPOT_CREDS_FILE": str(credentials)}),
    )

    def fits():
        pod = by_kind["DaemonSet"]["spec"]["template"]
        selector = by_kind["Service"]["spec"]["selector"]
        same(selector.items() <= pod["metadata"]["labels"].items(), True)
        same(
            [port["name"] for port in pod["spec"]["containers"][0]["ports"]],
            [by_kind["Service"]["spec"]["ports"][0]["targetPort"]],
        )
        mounted = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        same(mounted, {volume["name"] for volume in pod["spec"]["volumes"]})

    world.check("Service, ports and mounts belong together", fits)
    if not world.with_clients:
        return
    port = by_kind["Service"]["spec"]["ports"][0]["nodePort"]
    world.mirror(port=port)
    client = nodes.Containerd(world)
    hosts = world.scratch / "kubernetes/_default"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text((DEPLOY / "kubernetes/hosts.toml").read_text())
    world.check(
        f"hosts.toml pulls through node port {port} (containerd)",
        lambda: client.pull(hosts.parent, "docker.io/library/app:1.0"),
    )
