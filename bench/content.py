"""What the upstream serves: certificates, blobs and manifests, made anew for each run."""

import hashlib
import json
import os
import subprocess

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

REPOSITORY = "bench/image"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

# Not `latest`: entrepot asks for that every time unless told otherwise.
TAG = "1.0"

# A manifest of a few layers has about this size.
MANIFEST_BYTES = 2 * KIB


class Blob:
    """A blob below the upstream's root."""

    def __init__(self, digest, size):
        self.digest = digest
        self.size = size
        self.path = f"/v2/{REPOSITORY}/blobs/{digest}"


class Content:
    """Files below `root`, laid out as a registry's paths are."""

    def __init__(self, root):
        self.root = root
        for folder in ("blobs", "manifests"):
            os.makedirs(os.path.join(root, f"v2/{REPOSITORY}", folder))

    def blob(self, size):
        """Makes a blob of random bytes. It stays in the page cache, where the upstream finds it."""
        unnamed = os.path.join(self.root, "unnamed")
        digest = hashlib.sha256()
        with open(unnamed, "wb") as file:
            for offset in range(0, size, 4 * MIB):
                chunk = os.urandom(min(4 * MIB, size - offset))
                digest.update(chunk)
                file.write(chunk)
        blob = Blob(f"sha256:{digest.hexdigest()}", size)
        os.rename(unnamed, self.root + blob.path)
        return blob

    def manifest(self, config, layer, tag=None):
        """Makes an image of one layer: the path of its tag, or of its digest where it has no tag, and the digest."""
        def descriptor(media_type, blob):
            return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": blob.digest, "size": blob.size}

        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor("config.v1+json", config),
            "layers": [descriptor("layer.v1.tar+gzip", layer)],
            "annotations": {"padding": ""},
        }
        manifest["annotations"]["padding"] = "x" * (MANIFEST_BYTES - len(json.dumps(manifest)))
        text = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        folder = f"/v2/{REPOSITORY}/manifests/"
        for reference in filter(None, (tag, digest)):
            with open(self.root + folder + reference, "wb") as file:
                file.write(text)
        return folder + (tag or digest), digest


class Certificates:
    """A certificate authority, and a certificate for loopback signed by it."""

    def __init__(self, directory):
        os.makedirs(directory)
        self.authority = os.path.join(directory, "ca.crt")
        self.certificate = os.path.join(directory, "server.crt")
        self.key = os.path.join(directory, "server.key")
        authority_key = os.path.join(directory, "ca.key")
        request = os.path.join(directory, "server.csr")
        extensions = os.path.join(directory, "server.ext")
        with open(extensions, "w", encoding="ascii") as file:
            file.write(
                "basicConstraints = critical, CA:FALSE\n"
                "keyUsage = critical, digitalSignature\n"
                "extendedKeyUsage = serverAuth\n"
                "subjectAltName = IP:127.0.0.1, DNS:localhost\n"
            )
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        _openssl("req", "-x509", *new_key, "-keyout", authority_key, "-out", self.authority, "-days", "2",
                 "-subj", "/CN=entrepot bench authority", "-addext", "keyUsage = critical, keyCertSign")
        _openssl("req", *new_key, "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        _openssl("x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key, "-CAcreateserial",
                 "-extfile", extensions, "-out", self.certificate, "-days", "2")


def _openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
