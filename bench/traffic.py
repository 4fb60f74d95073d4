"""Clients that discard what they read, in a process of their own: `traffic.py WHAT JSON`; the result is JSON as well.

Bodies are dropped in the kernel (`MSG_TRUNC`, see tcp(7)), so one process takes several GiB/s and the server, not the
client, is what is measured.
"""

import hashlib
import json
import select
import socket
import ssl
import sys
import time

# What one connection may take before the others have their turn.
TURN_BYTES = 1 << 20

_buffer = bytearray(TURN_BYTES)


class ShortAnswer(Exception):
    """The server closed before the end, or answered with something else than the blob."""


class Download:
    """A connection that has the same blob sent to it, once or over and over."""

    def __init__(self, port, path):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setblocking(False)
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode()
        self._head = b""
        # Body bytes to come; `None` while the head is incomplete.
        self._left = None
        self.received = 0
        self.first_byte_at = None
        self.hash = None

    def ask(self):
        """Sends the request, which fits into any socket's buffer."""
        self._head, self._left = b"", None
        self.socket.sendall(self._request)

    def read(self):
        """Takes what is there, up to one turn; whether the body is complete now."""
        try:
            if self._left is None:
                self._read_head()
            else:
                self._read_body()
        except BlockingIOError:
            pass
        return self._left == 0

    def _read_head(self):
        chunk = self.socket.recv(4096)
        if not chunk:
            raise ShortAnswer("closed without an answer")
        head, found, body = (self._head + chunk).partition(b"\r\n\r\n")
        self._head += chunk
        if found:
            self._left = content_length(head)
            self._took(len(body), body)

    def _read_body(self):
        if self.hash is None:
            count = self.socket.recv_into(_buffer, min(self._left, TURN_BYTES), socket.MSG_TRUNC)
        else:
            count = self.socket.recv_into(_buffer, min(self._left, TURN_BYTES))
        if count == 0:
            raise ShortAnswer(f"closed {self._left} bytes before the end")
        self._took(count, memoryview(_buffer)[:count])

    def _took(self, count, body):
        if count and self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        if self.hash is not None:
            self.hash.update(body)
        self._left -= count
        self.received += count


def content_length(head):
    """The length that the head of a 200 declares."""
    status, *fields = head.decode("latin-1").split("\r\n")
    if status.split()[1] != "200":
        raise ShortAnswer(f"answered {status!r}")
    for field in fields:
        name, _, value = field.partition(":")
        if name.lower() == "content-length":
            return int(value)
    raise ShortAnswer("declares no length")


def crowd(port, path, size, digest, clients, seconds):
    """`clients` at once, one download each: time to the first byte of a body and to the last of all; one is hashed."""
    downloads = {}
    poll = select.epoll()
    for _ in range(clients):
        download = Download(port, path)
        downloads[download.socket.fileno()] = download
        poll.register(download.socket, select.EPOLLIN)
    everybody = list(downloads.values())
    everybody[0].hash = hashlib.sha256()
    errors = []

    began = time.monotonic()
    for download in everybody:
        download.ask()
    while downloads:
        if time.monotonic() - began > seconds:
            errors.append(f"{len(downloads)} of {clients} clients were not done after {seconds} s")
            break
        for descriptor, _ in poll.poll(1):
            try:
                if not downloads[descriptor].read():
                    continue
            except (ShortAnswer, OSError) as error:
                errors.append(str(error))
            poll.unregister(descriptor)
            del downloads[descriptor]
    ended = time.monotonic()

    if not errors and any(download.received != size for download in everybody):
        errors.append("a body has another length than the blob")
    if not errors and f"sha256:{everybody[0].hash.hexdigest()}" != digest:
        errors.append("the body is not the blob")
    first_bytes = sorted(d.first_byte_at - began for d in everybody if d.first_byte_at is not None)
    return {
        "seconds": ended - began,
        "first_byte_median": first_bytes[len(first_bytes) // 2] if first_bytes else None,
        "first_byte_last": first_bytes[-1] if first_bytes else None,
        "errors": len(errors),
        "error": errors[0] if errors else None,
    }


def load(port, path, clients, seconds):
    """`clients` that ask again as soon as they have the whole, for a while: how much came."""
    downloads = {}
    poll = select.epoll()
    for _ in range(clients):
        download = Download(port, path)
        downloads[download.socket.fileno()] = download
        poll.register(download.socket, select.EPOLLIN)
        download.ask()
    began = time.monotonic()
    now = began
    while now - began < seconds:
        for descriptor, _ in poll.poll(1):
            download = downloads[descriptor]
            if download.read():
                download.ask()
        now = time.monotonic()
    return {"seconds": now - began, "bytes": sum(d.received for d in downloads.values())}


def beside(port, path, large, seconds, pause):
    """How long `path` takes, asked for again `pause` seconds after it was answered, while another connection downloads
    `large`: over and over for `seconds`, or once where that is 0."""
    probe, download = Download(port, path), Download(port, large)
    poll = select.epoll()
    for connection in (probe, download):
        poll.register(connection.socket, select.EPOLLIN)
    download.ask()
    took, asked = [], None
    began = now = due = time.monotonic()
    while not seconds or now - began < seconds:
        if asked is None and now >= due:
            asked = now
            probe.ask()
        ready = {descriptor for descriptor, _ in poll.poll(pause / 4)}
        if probe.socket.fileno() in ready and probe.read():
            now = time.monotonic()
            took.append(now - asked)
            asked, due = None, now + pause
        if download.socket.fileno() in ready and download.read():
            if not seconds:
                break
            download.ask()
        now = time.monotonic()
    return {"took": took, "bytes": download.received, "seconds": now - began}


def first_bytes(port, paths, warm_up, authority):
    """One path after the other over one connection: seconds from each request to the first byte of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if authority:
        connection = ssl.create_default_context(cafile=authority).wrap_socket(connection, server_hostname="127.0.0.1")
    for path in warm_up:
        _first_byte(connection, path)
    return [_first_byte(connection, path) for path in paths]


def _first_byte(connection, path):
    began = time.monotonic()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode())
    answer, found, body = b"", b"", b""
    while not body:
        chunk = connection.recv(65536)
        if not chunk:
            raise ShortAnswer("closed without an answer")
        answer += chunk
        head, found, body = answer.partition(b"\r\n\r\n")
    seconds = time.monotonic() - began
    left = content_length(head) - len(body)
    while left:
        chunk = connection.recv(min(left, 65536))
        if not chunk:
            raise ShortAnswer(f"closed {left} bytes before the end")
        left -= len(chunk)
    return seconds


if __name__ == "__main__":
    try:
        result = {"crowd": crowd, "load": load, "beside": beside, "first_bytes": first_bytes}[sys.argv[1]](**json.loads(sys.argv[2]))
    except (ShortAnswer, OSError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
    json.dump(result, sys.stdout)
