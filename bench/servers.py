"""The upstream, and the servers that are measured: each a process with a configuration and a directory of its own."""

import json
import os
import subprocess

from content import MANIFEST_TYPE
from processes import Server, free_port

# More than the largest crowd, with a connection to upstream for each.
NGINX_CONNECTIONS = 8192

# What one connection gets from the limited upstream: nginx's notation, and bytes per second.
LIMIT_RATE = "40m"
LIMIT_BYTES_PER_SECOND = 40 << 20

NGINX_COMMON = """
worker_processes {workers};
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 1000000000;
    {http}
}}
"""

# HTTP/1.1 alone, as nginx speaks no other version to an upstream. Larger buffers than usual keep it out of the way.
UPSTREAM = """
    log_format transfers '$connection $request_method $status $body_bytes_sent $uri';
    access_log {log} transfers;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    output_buffers 2 512k;
    open_file_cache max=10000 inactive=1h;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        include {directory}/paths;
    }}
    server {{
        listen 127.0.0.1:{limited_port} ssl backlog=4096;
        limit_rate {limit_rate};
        include {directory}/paths;
    }}
"""

# `/v2/` asks for a login that nothing else here needs, as registries do. Where it does not, docker-registry asks there
# once more before everything that it passes on.
REGISTRY_PATHS = """
    root {root};
    add_header Docker-Distribution-Api-Version registry/2.0;
    location = /v2/ {{
        add_header WWW-Authenticate 'Basic realm="bench"' always;
        return 401;
    }}
    location ~ ^/v2/.+/manifests/(?<digest>sha256:[0-9a-f]+)$ {{
        default_type {manifest_type};
        add_header Docker-Content-Digest $digest;
    }}
    location ~ ^/v2/.+/manifests/ {{
        default_type {manifest_type};
        add_header Docker-Content-Digest {manifest_digest};
    }}
    location ~ ^/v2/.+/blobs/(?<digest>sha256:[0-9a-f]+)$ {{
        default_type application/octet-stream;
        add_header Docker-Content-Digest $digest;
    }}
"""

# A lock that nobody runs out of.
# Without `tcp_nopush`: in a cache file the body does not start on a page, so the kernel makes one more segment of it,
# and that waits 40 ms for the client's acknowledgement.
CACHING_PROXY = """
    access_log off;
    proxy_cache_path {directory}/cache levels=1:2 keys_zone=blobs:16m inactive=1d use_temp_path=off;
    upstream registry {{
        server 127.0.0.1:{upstream_port};
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass https://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ssl_trusted_certificate {authority};
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
            {buffers}
            proxy_cache blobs;
            proxy_cache_valid 200 1d;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 1h;
            proxy_cache_lock_age 1h;
        }}
    }}
"""

# In place of 8 buffers of 4 KiB, which a fill takes a fifth more time with.
LARGE_BUFFERS = "proxy_buffer_size 256k; proxy_buffers 16 256k; proxy_busy_buffers_size 512k;"

FILES = """
    access_log off;
    tcp_nopush on;
    {open_files}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        include {directory}/paths;
    }}
"""


class Upstream(Server):
    """nginx as a registry over TLS, at full speed on one port and limited per connection on another."""

    def __init__(self, directory, content, certificates, manifest_digest):
        self.port, self.limited_port = free_port(), free_port()
        self._transfers = os.path.join(directory, "transfers.log")
        _write_paths(directory, content.root, manifest_digest)
        http = UPSTREAM.format(
            log=self._transfers,
            certificate=certificates.certificate,
            key=certificates.key,
            port=self.port,
            limited_port=self.limited_port,
            limit_rate=LIMIT_RATE,
            directory=directory,
        )
        super().__init__("upstream", _nginx(directory, http, workers="auto"), directory)
        self.wait_until_ready(self.port)

    def mark(self):
        """The present end of what it has sent, for `since`."""
        return os.path.getsize(self._transfers)

    def since(self, mark, path):
        """Body bytes and number of connections that `path` was sent with since `mark`, requests under way left out."""
        sent, connections = 0, set()
        with open(self._transfers, encoding="utf-8") as log:
            log.seek(mark)
            for line in log:
                connection, method, _, body_bytes, uri = line.split()
                if method == "GET" and uri == path:
                    sent += int(body_bytes)
                    connections.add(connection)
        return sent, len(connections)


class Surroundings:
    """What a server under test is given: directory, way to the upstream, processors, and whether it logs requests."""

    def __init__(self, directory, upstream_port, certificates, content, manifest_digest, cores, is_quiet):
        self.directory = directory
        self.upstream_port = upstream_port
        self.certificates = certificates
        self.content = content
        self.manifest_digest = manifest_digest
        self.cores = cores
        self.is_quiet = is_quiet

    @property
    def nginx_workers(self):
        """One worker for each processor it may use; `auto` would count those of the whole machine."""
        return len(self.cores) if self.cores else "auto"


def entrepot(given, port):
    """The built binary, at its defaults: every request is a line of its log, unless it is to be quiet."""
    command = [
        os.environ["ENTREPOT_BINARY"],
        f"--cache-dir={given.directory}/cache",
        f"--port={port}",
        f"--upstream=bench.example=https://127.0.0.1:{given.upstream_port}",
        f"--upstream-ca={given.certificates.authority}",
        "--default-upstream=bench.example",
        *(["--log-level=warn"] if given.is_quiet else []),
    ]
    return Server("entrepot", command, given.directory, cores=given.cores)


def nginx_cache(given, port, buffers=LARGE_BUFFERS):
    """nginx as a caching proxy that collapses misses."""
    http = CACHING_PROXY.format(
        directory=given.directory,
        upstream_port=given.upstream_port,
        port=port,
        authority=given.certificates.authority,
        buffers=buffers,
    )
    return _nginx_server("nginx-cache", given, http)


def nginx_usual(given, port):
    """The same with the buffers that nginx has unless it is told otherwise."""
    return nginx_cache(given, port, buffers="")


def nginx_file(given, port, open_files=""):
    """nginx with the upstream's own files, over plain http."""
    _write_paths(given.directory, given.content.root, given.manifest_digest)
    http = FILES.format(port=port, directory=given.directory, open_files=open_files)
    return _nginx_server("nginx-file", given, http)


def nginx_open_file(given, port):
    """The same, which keeps files open and believes for a minute that they have not changed."""
    return nginx_file(given, port, open_files="open_file_cache max=10000 inactive=1h;")


def docker_registry(given, port):
    """Debian's docker-registry as a pull-through cache, without an access log."""
    configuration = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{given.directory}/cache"}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "proxy": {"remoteurl": f"https://127.0.0.1:{given.upstream_port}"},
    }
    # JSON is YAML.
    file = os.path.join(given.directory, "registry.yml")
    with open(file, "w", encoding="utf-8") as out:
        json.dump(configuration, out)
    environment = {"SSL_CERT_FILE": given.certificates.authority, "OTEL_TRACES_EXPORTER": "none"}
    command = ["docker-registry", "serve", file]
    return Server("docker-registry", command, given.directory, environment, cores=given.cores)


# How each is started, by its name in the tables.
SERVERS = {
    "entrepôt": entrepot,
    "nginx cache": nginx_cache,
    "nginx cache, usual buffers": nginx_usual,
    "nginx file": nginx_file,
    "nginx file, kept open": nginx_open_file,
    "docker-registry": docker_registry,
}


def versions():
    """Of everything that takes part, for the heading."""
    def first_line(*command):
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return result.stdout.partition("\n")[0].strip()

    return {
        "entrepot": first_line(os.environ["ENTREPOT_BINARY"], "--version").split()[-1],
        "nginx": first_line("nginx", "-v").rpartition("/")[2],
        "docker-registry": first_line("docker-registry", "--version").split()[-1],
        "curl": first_line("curl", "--version").split()[1],
        "wrk": first_line("wrk", "-v").split()[1].removeprefix("debian/"),
        "openssl": first_line("openssl", "version").split()[1],
    }


def _nginx_server(name, given, http):
    return Server(name, _nginx(given.directory, http, given.nginx_workers), given.directory, cores=given.cores)


def _nginx(directory, http, workers):
    configuration = os.path.join(directory, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as out:
        out.write(
            NGINX_COMMON.format(
                workers=workers,
                files=2 * NGINX_CONNECTIONS,
                connections=NGINX_CONNECTIONS,
                directory=directory,
                # Else its workers would become somebody who may not read here.
                user="user root;" if os.geteuid() == 0 else "",
                http=http,
            )
        )
    return ["nginx", "-p", directory, "-e", "stderr", "-c", configuration, "-g", "daemon off;"]


def _write_paths(directory, root, manifest_digest):
    with open(os.path.join(directory, "paths"), "w", encoding="utf-8") as out:
        out.write(REGISTRY_PATHS.format(root=root, manifest_type=MANIFEST_TYPE, manifest_digest=manifest_digest))
