"""What cannot be is refused before anything is installed, with a message that names it."""

import unittest

import chart
import helm_python as helm

# Values, and words that the message has.
MISTAKES = [
    ({"mode": "daemon"}, ["/mode", "daemonset", "deployment", "statefulset"]),
    ({"modee": "daemonset"}, ["modee", "additional properties"]),
    ({"service": {"nodePrt": 1}}, ["/service", "nodePrt"]),
    ({"service": {"nodePort": "30300"}}, ["/service/nodePort", "string"]),
    ({"service": {"port": 70000}}, ["/service/port", "65,535"]),
    ({"image": {"digest": "sha256:short"}}, ["/image/digest"]),
    ({"persistence": {"size": "100 GB"}}, ["/persistence/size", "100 GB"]),
    ({"persistence": {"hostPath": "relative"}}, ["/persistence/hostPath"]),
    ({"config": {"listen": [{"adress": "[::]:3000"}]}}, ["/config/listen/0", "address"]),
    ({"config": {"listen": []}}, ["/config/listen"]),
    ({"config": {"cache": {"directory": "/cache"}}}, ["/config/cache"]),
    ({"registryPullSecrets": ["regcred"]}, ["/registryPullSecrets/0", "object"]),
    ({"credentials": {"ghcr.io": {"user": "me"}}}, ["/credentials/ghcr.io", "user"]),
    ({"nodeSetup": {"mirror": "mirror.example.com:3000"}}, ["/nodeSetup/mirror"]),
    ({"metrics": {"prometheusRule": {"hitRatio": 30}}}, ["/metrics/prometheusRule/hitRatio", "1"]),
    ({"tolerations": {"operator": "Exists"}}, ["/tolerations", "array"]),
]

# The same, where each value is right, but not together with the others.
CONTRADICTIONS = [
    ({"persistence": {"enabled": True}}, ["persistence.hostPath", "statefulset"]),
    ({"mode": "statefulset", "persistence": {"existingClaim": "a"}}, ["persistence.existingClaim", "deployment"]),
    ({"service": {"type": "ClusterIP"}}, ["nodeSetup", "hostPort.enabled", "nodeSetup.mirror"]),
    ({"credentials": chart.CREDENTIALS, "existingSecret": "a"}, ["credentials", "existingSecret"]),
    ({"ingress": {"enabled": True}}, ["ingress.hosts"]),
    ({"httproute": {"enabled": True}}, ["httproute.parentRefs"]),
    ({"config": {"listen": [{"address": "[::]"}]}}, ["config.listen[0].address", "port"]),
    ({"config": {"listen": [{"address": "[::]:1", "tls": {"certificate": "a"}}]}}, ["config.listen[0].tls"]),
    ({"ca": {"bundle": "a", "existingSecret": "b"}}, ["ca.bundle", "only one"]),
]


class Mistakes(unittest.TestCase):
    def assert_refused(self, values, words):
        with self.assertRaises(helm.HelmError) as refusal:
            chart.render(values)
        for word in words:
            self.assertIn(word, str(refusal.exception))

    def test_the_schema_refuses_a_mistake_and_says_where_it_is(self):
        for values, words in MISTAKES:
            with self.subTest(values):
                self.assert_refused(values, words)

    def test_every_mistake_of_a_file_is_told_at_once(self):
        several = [MISTAKES[index] for index in (0, 2, 6)]
        self.assert_refused(chart.merged(*(v for v, _ in several)), [word for _, words in several for word in words])

    def test_what_contradicts_itself_is_refused_with_the_way_out(self):
        for values, words in CONTRADICTIONS:
            with self.subTest(values):
                self.assert_refused(values, words)
