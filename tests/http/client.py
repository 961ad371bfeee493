"""What the HTTP tests share: a daemon under test, requests, photos."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build", os.environ.get("V", "release"))
DATA = os.environ.get("FACENETD_DATA") or os.path.join(ROOT, "..", "shared", "data")
DAEMON = os.path.join(BUILD, "facenetd")
CTL = os.path.join(BUILD, "facenetctl")
PHOTO = os.path.join(BUILD, "tests", "http", "photo")
# Sanitisers are slow, and so are two busy cores.
PATIENCE = float(os.environ.get("PATIENCE", "60"))
# How many times longer the daemon may take over a request.
SLOW = {"asan": 5, "tsan": 20}.get(os.environ.get("V", "release"), 1)


class Skip(Exception):
    pass


def run(*argv, ok=True, env=None):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE * 5,
                       env=dict(os.environ, **env) if env else None)
    if ok and p.returncode != 0:
        raise AssertionError("%s: exit %d: %s" % (argv[0:3], p.returncode, p.stderr.strip()))
    return p


def read(path):
    with open(path, "rb") as f:
        return f.read()


def sanitiser_words(log):
    """Did a sanitiser report something?"""
    return re.search(r"(ERROR|WARNING): \w+Sanitizer|runtime error:", log) is not None


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "%d %s" % (self.status, self.body[:400].decode("utf-8", "replace"))


def multipart(fields):
    """fields: (name, bytes | str); bytes become files."""
    boundary = "----f1e2d3c4b5a6978"
    out = b""
    for name, value in fields:
        out += b"--%s\r\nContent-Disposition: form-data; name=\"%s\"" % (
            boundary.encode(), name.encode())
        if isinstance(value, bytes):
            out += b"; filename=\"photo.jpg\"\r\nContent-Type: image/jpeg"
        else:
            value = value.encode()
        out += b"\r\n\r\n" + value + b"\r\n"
    out += b"--%s--\r\n" % boundary.encode()
    return out, "multipart/form-data; boundary=" + boundary


# A plugin whose card all daemons are to serve on: the same tests there. With
# what they are given beside it, so that they start soon.
CARD = os.environ.get("FACENETD_PLUGIN")
CARD_ARGS = os.environ.get("FACENETD_CARD_ARGS", "").split()
# Where the programs find their libraries, this Python being elsewhere.
if "FACENETD_LIBRARY_PATH" in os.environ:
    os.environ["LD_LIBRARY_PATH"] = os.environ["FACENETD_LIBRARY_PATH"]


class Daemon:
    """The real daemon on a loopback port of its own."""

    def __init__(self, models, *args, data=None, ready=True, env=None):
        self.own_data = data is None
        self.data = data or tempfile.mkdtemp(prefix="facenetd-http-")
        self.log, self.port = [], None
        self.seen = threading.Condition()
        argv = [DAEMON, "--listen", "127.0.0.1:0", "--data-dir", self.data,
                "--models", models, *args]
        if SLOW > 1 and "--deadline-ms" not in args:
            argv += ["--deadline-ms", str(10000 * SLOW)]
        if "--device" not in args:
            argv += ["--device", "cuda", "--device-plugin", CARD] if CARD else \
                    ["--device", "cpu"]  # the same on a machine with a card
        if CARD:
            argv += CARD_ARGS
        env = dict(os.environ, **(env or {}))
        for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"):
            env.pop(name, None)
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL, env=env)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            self.wait_ready()

    def _read(self):
        for raw in self.process.stderr:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            with self.seen:
                self.log.append(line)
                found = re.search(r'event=ready\b.*\blisten="?[^ "]*:(\d+)', line)
                if found:
                    self.port = int(found.group(1))
                self.seen.notify_all()
        with self.seen:
            self.log.append("(end)")
            self.seen.notify_all()

    def wait_log(self, pattern, patience=PATIENCE):
        """The first line that matches; fails when the daemon ends first."""
        end = time.monotonic() + patience
        at = 0
        with self.seen:
            while True:
                while at < len(self.log):
                    if re.search(pattern, self.log[at]):
                        return self.log[at]
                    if self.log[at] == "(end)":
                        raise AssertionError("ended: " + self.text()[-2000:])
                    at += 1
                if not self.seen.wait(end - time.monotonic()):
                    raise AssertionError("no log line %r: %s" % (pattern, self.text()[-2000:]))

    def wait_ready(self):
        try:
            self.wait_log(r"event=ready\b")
            end = time.monotonic() + PATIENCE
            while self.get("/readyz").status != 200:
                if time.monotonic() > end:
                    raise AssertionError("never ready")
                time.sleep(0.02)
        except BaseException:
            self.kill()
            raise

    def text(self):
        return "\n".join(self.log)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body=body, headers=headers or {})
            r = c.getresponse()
            return Answer(r.status, r.headers, r.read())
        finally:
            c.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def delete(self, path, headers=None):
        return self.request("DELETE", path, headers=headers)

    def post(self, path, fields, headers=None, method="POST"):
        """fields: list of pairs (multipart), dict (JSON) or bytes (a photo)."""
        if isinstance(fields, dict):
            body, kind = json.dumps(fields).encode(), "application/json"
        elif isinstance(fields, bytes):
            body, kind = fields, "image/jpeg"
        else:
            body, kind = multipart(fields)
        return self.request(method, path, body, dict({"Content-Type": kind}, **(headers or {})))

    def raw(self, data, half_close=False, patience=PATIENCE):
        """Bytes out, bytes back until the daemon closes."""
        s = self.connect()
        try:
            s.settimeout(patience)
            try:
                s.sendall(data)
                if half_close:
                    s.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass
            got = b""
            try:
                while True:
                    part = s.recv(65536)
                    if not part:
                        return got
                    got += part
            except ConnectionResetError:
                return got
        finally:
            s.close()

    def metric(self, name):
        found = re.search(r"^%s (\S+)$" % re.escape(name), self.get("/metrics").body.decode(), re.M)
        return float(found.group(1)) if found else None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE)

    def stop(self, clean=True):
        """SIGTERM; the exit status. Removes the data directory if it is ours."""
        self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("did not end on SIGTERM: " + self.text()[-1000:])
        self.reader.join(PATIENCE)
        if self.own_data and clean:
            shutil.rmtree(self.data, ignore_errors=True)
        if sanitiser_words(self.text()):
            raise AssertionError(self.text()[-4000:])
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if self.process.poll() is None:
            if kind is None:
                code = self.stop()
                assert code == 0, "exit %d: %s" % (code, self.text()[-1000:])
            else:
                self.kill()
        if self.own_data:
            shutil.rmtree(self.data, ignore_errors=True)


def expect(answer, status, code=None, /, **subset):
    """Status, problem code and members of the answer's JSON."""
    assert answer.status == status, "wanted %d: %r" % (status, answer)
    if code:
        kind = answer.headers.get("Content-Type", "")
        assert kind.startswith("application/problem+json"), kind
        assert answer.json["code"] == code, "wanted %s: %r" % (code, answer)
        assert answer.json["status"] == status, repr(answer)
        for name in ("type", "title", "detail", "retryable"):
            assert name in answer.json, "no %s: %r" % (name, answer)
    for name, value in subset.items():
        assert answer.json.get(name) == value, "wanted %s=%r: %r" % (name, value, answer)
    return answer
