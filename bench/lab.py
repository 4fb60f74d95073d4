"""The place where everything is measured: a directory with the content, the upstream, and one server at a time."""

import contextlib
import os
import tempfile
import time

from content import KIB, TAG, Certificates, Content
from processes import free_port, remove
from servers import SERVERS, Surroundings, Upstream

# A request under way is in the upstream's log a moment after its connection has closed.
LOG_WITHIN_SECONDS = 0.5


class Lab:
    """Everything is below `directory`, which its owner removes."""

    def __init__(self, directory, sizes):
        self.directory = directory
        self.sizes = sizes
        self.certificates = Certificates(os.path.join(directory, "certificates"))
        self.content = Content(os.path.join(directory, "root"))
        self._blobs = {}
        self.manifest_path, self._manifest_digest = self.content.manifest(
            self.blob(2 * KIB), self.blob(4 * KIB), TAG
        )
        place = os.path.join(directory, "upstream")
        os.makedirs(place)
        self.upstream = Upstream(place, self.content, self.certificates, self._manifest_digest)
        # What the row `miss` found for the upstream itself, for those that come after it.
        self.direct = None
        self.server_cores, self.client_cores = _split(sorted(os.sched_getaffinity(0)))

    def blobs(self, size, count):
        """So many blobs of a size, the same ones each time."""
        made = self._blobs.setdefault(size, [])
        while len(made) < count:
            made.append(self.content.blob(size))
        return made[:count]

    def blob(self, size):
        """One of them."""
        return self.blobs(size, 1)[0]

    def image_of(self, blob):
        """The path of a manifest with this blob as its layer, which a client asks for before the blob."""
        path, _ = self.content.manifest(self.blob(2 * KIB), blob)
        return path

    @contextlib.contextmanager
    def start(self, name, limited=False, one_core=False, is_quiet=False):
        """A server with an empty cache: itself and its port. It is ended, and what it stored removed.

        With `one_core` it has one processor to itself, and the upstream the others. If it `is_quiet`, entrepôt logs no
        requests; the others never do.
        """
        directory = tempfile.mkdtemp(prefix="server-", dir=self.directory)
        given = Surroundings(
            directory=directory,
            upstream_port=self.upstream.limited_port if limited else self.upstream.port,
            certificates=self.certificates,
            content=self.content,
            manifest_digest=self._manifest_digest,
            cores=self.server_cores if one_core else None,
            is_quiet=is_quiet,
        )
        port = free_port()
        try:
            # What was made for this row, and what the last server left, is not to be written while this one works.
            os.sync()
            if one_core:
                self.upstream.keep_to(self.client_cores)
            with SERVERS[name](given, port) as server:
                server.wait_until_ready(port)
                yield server, port
        finally:
            self.upstream.keep_to(os.sched_getaffinity(0))
            remove(directory)

    def upstream_sent(self, mark, blob):
        """Body bytes and connections that the upstream needed for a blob since `mark`, once its log has all of them."""
        time.sleep(LOG_WITHIN_SECONDS)
        return self.upstream.since(mark, blob.path)

    def forget_pages(self, directory):
        """Has the files below `directory`, and those of the upstream, on disk and nowhere else."""
        os.sync()
        for root in (directory, self.content.root):
            for place, _, names in os.walk(root):
                for name in names:
                    _forget(os.path.join(place, name))

    def close(self):
        """Ends the upstream."""
        self.upstream.stop()


def _forget(file):
    # Sockets and pipes have no pages.
    if os.path.isfile(file):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _split(cores):
    """One processor for the server, the others for its clients; no choice where there is but one."""
    return (cores[:1], cores[1:]) if len(cores) > 1 else (None, None)
