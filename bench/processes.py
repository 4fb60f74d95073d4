"""Servers as processes of their own: started, watched in /proc, and ended by process id."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# The slowest start is a fraction of a second; a busy machine may take longer.
READY_WITHIN_SECONDS = 20

# A fill may go on after its client has gone, and a write-back after that.
IDLE_WITHIN_SECONDS = 60
IDLE_FOR_SECONDS = 0.3

# An orderly end may wait for open connections; nothing here is worth waiting for.
END_WITHIN_SECONDS = 5

# Between two looks at what a process does with memory.
SAMPLE_SECONDS = 0.02


class Failure(Exception):
    """What went wrong with one measurement, for its cell of the table."""


class Server:
    """A server and all processes of its session."""

    def __init__(self, name, command, directory, environment=None, cores=None):
        self.name = name
        self.directory = directory
        self.log = os.path.join(directory, f"{name}.log")
        if cores:
            # It becomes the command, so the process id stays.
            command = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={"PATH": os.environ["PATH"], **(environment or {})},
                start_new_session=True,
            )

    def wait_until_ready(self, port):
        """Returns when the port accepts connections."""
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended by itself: {self.last_words()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise Failure(f"{self.name} does not listen: {self.last_words()}")

    def last_words(self):
        """The end of its log."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return " / ".join(log.read().strip().splitlines()[-3:])

    def pids(self):
        """The process and those that it started."""
        return [pid for pid, fields in _processes() if int(fields[_SESSION]) == self.process.pid]

    def keep_to(self, cores):
        """Lets its processes run on these processors only; on any that they may, where `cores` is empty."""
        for pid in self.pids() if cores else ():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(pid, cores)

    def cpu_seconds(self):
        """User and system time of all its processes and threads since they began, also of children that ended."""
        return sum(
            sum(map(int, fields[_USER_TIME : _USER_TIME + 4]))
            for _, fields in _processes()
            if int(fields[_SESSION]) == self.process.pid
        ) / TICKS_PER_SECOND

    def wait_until_idle(self):
        """Returns when it has used no processor for a while: what a client left behind is done."""
        deadline = time.monotonic() + IDLE_WITHIN_SECONDS
        before, since = self.cpu_seconds(), time.monotonic()
        while time.monotonic() - since < IDLE_FOR_SECONDS:
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} is still at work {IDLE_WITHIN_SECONDS} s after its last client")
            time.sleep(0.05)
            now = self.cpu_seconds()
            if now != before:
                before, since = now, time.monotonic()

    def stop(self):
        """Ends it and whatever it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Memory:
    """The most resident memory that a server has while this is open, above what it had before."""

    def __init__(self, server):
        self._pids = server.pids()
        self._idle = self._now()
        self._peak = self._idle
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _now(self):
        return sum(_status_bytes(pid, "VmRSS") for pid in self._pids)

    def _watch(self):
        while not self._ended.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, self._now())

    def __enter__(self):
        for pid in self._pids:
            _forget_peak(pid)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self._peak = max(self._peak, self._now())
        if len(self._pids) == 1:
            # One process: the kernel knows better than samples do.
            self._peak = max(self._peak, _status_bytes(self._pids[0], "VmHWM"))

    @property
    def idle(self):
        """Bytes before."""
        return self._idle

    @property
    def above_idle(self):
        """Bytes at the peak, above those before."""
        return self._peak - self._idle


# Of the fields of /proc/PID/stat after the name of the command; proc(5) counts from 1, with two before these.
_SESSION = 3
_USER_TIME = 11


def _processes():
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    # The name stands in brackets, and may hold anything.
                    yield int(entry), stat.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue


def _status_bytes(pid, key):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _forget_peak(pid):
    """Has VmHWM begin anew: 5 resets it, see proc(5)."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def free_port():
    """A port of loopback that nobody has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def remove(directory):
    """Removes a directory, and waits until the disk has heard of it and has nothing left to write."""
    shutil.rmtree(directory, ignore_errors=True)
    os.sync()
