"""Cases of the daemon as systemd runs it: the socket handed over, and what it
tells the manager while it starts, lives, reloads and ends."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from cases_plain import models
from client import DAEMON, PATIENCE, Skip, sanitiser_words

CASES = []
WATCHDOG_US = 2000000


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Manager:
    """The part of the service manager: a datagram socket, and a daemon that
    was started through systemd-socket-activate, which keeps its process."""

    def __init__(self, where, address, *args):
        tool = shutil.which("systemd-socket-activate")
        if not tool:
            raise Skip("systemd-socket-activate is not installed")
        self.said = []
        self.dir = tempfile.mkdtemp(prefix="facenetd-http-")
        self.log = open(os.path.join(self.dir, "log"), "w+", encoding="utf-8")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address or os.path.join(self.dir, "notify"))
        name = address.replace("\0", "@", 1) if address else self.socket.getsockname()
        self.port = free_port()
        env = dict(os.environ, NOTIFY_SOCKET=name, WATCHDOG_USEC=str(WATCHDOG_US))
        env.pop("WATCHDOG_PID", None)
        # It passes on only the variables that it is told to.
        passed = [a for n in sorted(env) for a in ("-E", n)]
        self.process = subprocess.Popen(
            [tool, "-l", "127.0.0.1:%d" % self.port, *passed, DAEMON, "--data-dir",
             os.path.join(self.dir, "data"), "--models", where, *args],
            env=env, stdout=subprocess.DEVNULL, stderr=self.log)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def wait(self, pattern):
        """The next message that matches."""
        end = time.monotonic() + PATIENCE
        while True:
            self.socket.settimeout(max(end - time.monotonic(), 0.01))
            try:
                said = self.socket.recv(4096).decode()
            except socket.timeout:
                raise AssertionError("never said %r, only %r: %s" % (
                    pattern, self.said, self.text()[-1000:])) from None
            self.said.append(said)
            if re.search(pattern, said):
                return said

    def connect(self):
        """Waits until the tool listens; the first connection starts the daemon."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
            except ConnectionRefusedError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise AssertionError("nobody listens: " + self.text()[-1000:]) from None
                time.sleep(0.02)

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            c.request("GET", path)
            return c.getresponse().status
        finally:
            c.close()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.socket.close()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def life(ctx, address):
    with Manager(models(ctx), address) as m:
        # Sent before the daemon is there: it waits in the socket's queue.
        with m.connect() as early:
            early.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
                          b"Connection: close\r\n\r\n")
            m.wait(r"^READY=1$")
            assert early.recv(64).startswith(b"HTTP/1.1 200 "), "the first request was lost"
        assert not any("WATCHDOG" in s or "STOPPING" in s for s in m.said), m.said
        assert m.get("/readyz") == 200
        m.wait(r"^STATUS=serving on systemd:%d; 0 faces" % m.port)
        for _ in range(2):
            began = time.monotonic()
            m.wait(r"^WATCHDOG=1$")
        assert time.monotonic() - began < WATCHDOG_US / 1e6, "fed too late"
        m.process.send_signal(signal.SIGHUP)
        m.wait(r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        m.wait(r"^READY=1$")
        m.process.send_signal(signal.SIGTERM)
        m.wait(r"^STOPPING=1$")
        code = m.process.wait(PATIENCE)
        assert code == 0, "exit %d: %s" % (code, m.text()[-1000:])
        assert not sanitiser_words(m.text()), m.text()[-4000:]


@case("socket activation: ready, watchdog, reload, stopping")
def _(ctx):
    life(ctx, None)


@case("the same over an abstract notification socket")
def _(ctx):
    life(ctx, "\0facenetd-test-%d" % os.getpid())


@case("a start that fails says why and is never ready")
def _(ctx):
    with Manager(ctx.path("no-such-models"), None) as m:
        m.connect().close()
        m.wait(r"^STATUS=.*no-such-models")
        code = m.process.wait(PATIENCE)
        assert code > 0, code
        assert "READY=1" not in m.said, m.said
