"""Cases that need no face and no data: random weights, framing, limits,
files that are wrong, keys, signals."""

import base64
import glob
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib

from client import (CARD, CTL, DAEMON, PATIENCE, PHOTO, Daemon, Skip,
                    expect, multipart, read, run)

CASES = []


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


# --- what the cases use ----------------------------------------------------

NETWORKS = (("mobilefacenet", "embedder"), ("mtcnn_pnet", "detector_pnet"),
            ("mtcnn_rnet", "detector_rnet"), ("mtcnn_onet", "detector_onet"))


def models(ctx):
    def make():
        where = ctx.path("models")
        os.mkdir(where)
        for arch, file in NETWORKS:
            run(CTL, "model", "new", "--arch", arch, "--seed", "7",
                "-o", os.path.join(where, file + ".onnx"))
        return where
    return ctx.once("models", make)


def daemon(ctx):
    return ctx.once("daemon", lambda: Daemon(models(ctx)))


def png(w, h):
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data +
                struct.pack(">I", zlib.crc32(kind + data)))
    rows = b"".join(b"\0" + bytes((x * 255 // w) for x in range(w)) for _ in range(h))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def frame_at(jpeg):
    """Where the SOF0 marker of a baseline JPEG is."""
    at = 2
    while jpeg[at + 1] != 0xC0:
        at += 2 + struct.unpack(">H", jpeg[at + 2:at + 4])[0]
    return at


def patched(jpeg, offset, new):
    at = frame_at(jpeg) + offset
    return jpeg[:at] + new + jpeg[at + len(new):]


def cmyk(jpeg):
    at = frame_at(jpeg)
    length = struct.unpack(">H", jpeg[at + 2:at + 4])[0]
    frame = (b"\xff\xc0" + struct.pack(">H", length + 3) + jpeg[at + 4:at + 9] + b"\x04" +
             jpeg[at + 10:at + 2 + length] + b"\x04\x11\x00")
    return jpeg[:at] + frame + jpeg[at + 2 + length:]


def made(ctx, *argv):
    path = ctx.path("made-" + "-".join(argv[:3]))
    run(PHOTO, *argv, path)
    return read(path)


def plain(ctx):
    return ctx.once("plain", lambda: made(ctx, "plain", "200", "150"))


def value(ctx, v):
    """'@name' to bytes, anything else as it is."""
    if not isinstance(v, str) or not v.startswith("@"):
        return v
    name = v[1:]
    if name == "text":
        return b"This is not a photo, whatever its name says.\n" * 20
    if name == "empty":
        return b""
    if name == "x300":
        return "x" * 300
    if name == "deep":
        return b"[" * 5000
    if name == "png":
        return png(120, 90)
    if name == "scans":
        return ctx.once("scans", lambda: made(ctx, "scans", "640", "480"))
    photo = plain(ctx)
    if name == "webp":
        def webp():
            src, dst = ctx.path("w.jpg"), ctx.path("w.webp")
            with open(src, "wb") as f:
                f.write(photo)
            run(PHOTO, "webp", src, dst)
            return read(dst)
        return ctx.once("webp", webp)
    return {"plain": lambda: photo,
            "huge": lambda: patched(photo, 5, struct.pack(">HH", 65500, 65500)),
            "arithmetic": lambda: patched(photo, 1, b"\xc9"),
            "12bit": lambda: patched(photo, 4, b"\x0c"),
            "cmyk": lambda: cmyk(photo)}[name]()


def json_value(ctx, v):
    v = value(ctx, v)
    return base64.b64encode(v).decode() if isinstance(v, bytes) else v


# --- answers of the daemon about itself -------------------------------------

@case("info tells model, device and limits")
def _(ctx):
    d = daemon(ctx)
    info = d.get("/info").json
    assert len(info["model"]["id"]) == 64, info
    assert info["model"]["crop"] == "arcface-112" and info["model"]["width"] == 112
    assert info["model"]["embedding_size"] > 0
    if CARD:
        assert info["device"]["backend"] == "cuda" and not info["device"]["card"]["why"], info
    else:
        assert info["device"]["backend"] == "cpu" and info["device"]["why"]
        assert info["device"]["precision"] in ("f32", "bf16")
    assert info["limits"]["max_image_bytes"] == 10 << 20
    assert info["gallery"]["faces"] == 0 and info["uptime_s"] >= 0


@case("models lists the files")
def _(ctx):
    rows = daemon(ctx).get("/models").json["models"]
    assert [r["name"] for r in rows] == sorted(f for _, f in NETWORKS), rows
    assert [r["name"] for r in rows if r["active"]] == ["embedder"]
    assert all(r["loaded"] and len(r["id"]) == 64 and r["bytes"] > 0 for r in rows)


@case("metrics are Prometheus text")
def _(ctx):
    a = daemon(ctx).get("/metrics")
    assert a.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    seen = set()
    typed = {}
    for line in a.body.decode().splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:4]
            assert name not in typed, "twice: " + line
            typed[name] = kind
        elif not line.startswith("#"):
            found = re.fullmatch(r'([a-z_:]+)(\{([a-z_]+="[^"\n]*",?)*\})? '
                                 r'(-?[0-9.]+(e[+-]?[0-9]+)?|NaN|\+Inf)', line)
            assert found, "not a sample: " + line
            assert line.rsplit(" ", 1)[0] not in seen, "twice: " + line
            seen.add(line.rsplit(" ", 1)[0])
            base = re.sub(r"_(bucket|sum|count)$", "", found.group(1))
            assert base in typed or found.group(1) in typed, "no TYPE: " + line
    for name in ("facenetd_requests_total", "facenetd_batch_faces", "facenetd_gallery_faces",
                 "process_resident_memory_bytes", "facenetd_build_info", "facenetd_in_flight"):
        assert name in typed, name


@case("openapi knows every path and every reference resolves")
def _(ctx):
    doc = daemon(ctx).get("/openapi.json").json
    assert doc["openapi"].startswith("3.1")
    names = set()

    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                at = doc
                for part in node["$ref"].split("/")[1:]:
                    assert part in at, node["$ref"] + " leads nowhere"
                    at = at[part]
            if "operationId" in node:
                assert node["operationId"] not in names
                names.add(node["operationId"])
            for v in node.values():
                walk(v)
        elif isinstance(node, list):
            for v in node:
                walk(v)
    walk(doc)
    text = read(os.path.join(os.path.dirname(__file__), "..", "..", "api.md")).decode()
    told = {(m, p): rest for m, p, rest in
            re.findall(r"^### (\w+) (\S+)$(.*?)(?=^##)", text, re.M | re.S)}
    mine = {(m.upper(), p): o for p, ms in doc["paths"].items() for m, o in ms.items()}
    assert set(mine) == set(told), set(mine) ^ set(told)
    for key, rest in told.items():  # "409 `conflict`", "201 with its row"
        for status in re.findall(r"(?<![\w.,])([2-5]\d\d)(?= (?:`[a-z]|with |when ))", rest):
            assert status in mine[key]["responses"], (key, status)
    for status in ("200", "202"):
        assert status in mine["POST", "/admin/models/rollback"]["responses"]
    assert "409" not in mine["GET", "/admin/jobs/{id}"]["responses"]


# --- photos ------------------------------------------------------------------

@case("a JPEG cut short at any byte is never taken")
def _(ctx):
    d = daemon(ctx)
    photo = ctx.once("small", lambda: made(ctx, "plain", "40", "30"))
    for n in range(0, len(photo) - 2, max(1, len(photo) // 150)):
        a = d.post("/detect", [("image", photo[:n])])
        assert a.status in (413, 415, 422), "%d of %d bytes: %r" % (n, len(photo), a)
        assert a.json["image"] == "image", repr(a)


@case("of several bad photos the first is named, however they are read")
def _(ctx):
    d = daemon(ctx)
    slow, fast = plain(ctx), b"not a photo"
    for _ in range(5):
        expect(d.post("/verify", [("image1", slow), ("image2", fast)]), 422, "no_face",
               image="image1")
        expect(d.post("/verify", [("image1", fast), ("image2", slow)]), 415, "unsupported_image",
               image="image1")
    photos = [("image", x) for x in (slow, fast, slow, fast) * 3]
    a = expect(d.post("/enroll", [("subject", "nobody")] + photos), 422, "no_face", image="image",
               index=0)
    assert a.json["detail"].startswith("image 0: "), repr(a)


@case("a threshold of NaN in JSON, and other numbers that are none")
def _(ctx):
    photo = base64.b64encode(plain(ctx))
    for number in (b"NaN", b"-NaN", b"Infinity", b"1e999", b"0x1"):
        a = daemon(ctx).request(
            "POST", "/verify", b'{"image1":"%s","image2":"%s","threshold":%s}' %
            (photo, photo, number), {"Content-Type": "application/json"})
        assert a.status == 400 and a.json["code"].startswith("bad_"), repr(a)


@case("a body over the limit is refused without being read")
def _(ctx):
    d = daemon(ctx)
    s = d.connect()
    s.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
              b"Content-Length: 1073741824\r\n\r\n")
    got = s.recv(4096)
    s.close()
    assert got.startswith(b"HTTP/1.1 413"), got[:200]
    assert b"too_large" in got or b"problem+json" in got


@case("a photo over its limit names itself")
def _(ctx):
    d = daemon(ctx)
    big = plain(ctx) + b"\0" * (11 << 20)
    expect(d.post("/verify", [("image1", big), ("image2", plain(ctx))]), 413, "too_large",
           image="image1")


# --- framing -----------------------------------------------------------------

def one_answer(d, data, status):
    """One answer, then the end: nothing behind the request is looked at.
    (libmicrohttpd writes the head of an error of its own twice.)"""
    got = d.raw(data)
    heads = re.findall(rb"HTTP/1\.1 (\d+)", got)
    assert set(heads) == {str(status).encode()}, "%r to %r" % (got[:300], data[:80])
    assert status != 200 or len(heads) == 1, got[:300]


FRAMES = {
    "two Content-Lengths": b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                           b"Content-Length: 6\r\n\r\nhelloGET /healthz HTTP/1.1\r\n\r\n",
    "Content-Length beside chunks": b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                                    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "blank before the colon": b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length : 5\r\n\r\nhello",
    "a transfer coding that is not chunked": b"POST /detect HTTP/1.1\r\nHost: localhost\r\n"
                                             b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost:1\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "a length that is no number": b"POST /detect HTTP/1.1\r\nHost: localhost\r\n"
                                  b"Content-Length: 5x\r\n\r\nhello",
    "a negative length": b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\nhello",
}
for _name, _data in FRAMES.items():
    CASES.append(("refuses " + _name,
                  lambda ctx, data=_data: one_answer(daemon(ctx), data, 400)))


@case("takes a chunked body")
def _(ctx):
    photo = plain(ctx)
    body = b""
    for i in range(0, len(photo), 1000):
        part = photo[i:i + 1000]
        body += b"%x\r\n%s\r\n" % (len(part), part)
    one_answer(daemon(ctx), b"POST /detect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
               b"Content-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n" + body +
               b"0\r\n\r\n", 200)


@case("headers over the limit")
def _(ctx):
    got = daemon(ctx).raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" +
                          b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(80)) +
                          b"\r\n")
    assert not got or got.startswith((b"HTTP/1.1 431", b"HTTP/1.1 413")), got[:200]


@case("slow headers and slow bodies are cut off")
def _(ctx):
    with Daemon(models(ctx), "--header-ms", "300", "--body-ms", "600") as d:
        for start in (b"GET /healthz HTTP/1.1\r\nX: ",
                      b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
                      b"Content-Length: 100000\r\n\r\n"):
            s = d.connect()
            s.settimeout(0.05)
            s.sendall(start)
            began, open_ = time.monotonic(), True
            while open_ and time.monotonic() - began < PATIENCE:
                try:
                    s.sendall(b"y")
                    part = s.recv(4096)
                    if not part or b"408" in part.split(b"\r\n")[0]:
                        open_ = False
                except socket.timeout:
                    pass
                except OSError:
                    open_ = False
            s.close()
            assert not open_, "a trickle was let in for ever"
        assert d.get("/healthz").status == 200


@case("clients gone in the middle of an upload leave nothing behind")
def _(ctx):
    d = daemon(ctx)
    for _ in range(30):
        s = d.connect()
        s.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
                  b"Content-Length: 100000\r\n\r\n" + b"y" * 5000)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    end = time.monotonic() + PATIENCE
    while d.metric("facenetd_buffered_bytes") > 0:
        assert time.monotonic() < end, "bodies of clients that went away are kept"
        time.sleep(0.02)
    assert d.get("/healthz").status == 200


# --- keys ----------------------------------------------------------------------

def key_file(ctx):
    def make():
        path, keys = ctx.path("keys"), {}
        for right in ("verify", "enroll", "embed", "admin"):
            keys[right] = run(CTL, "keys", "add", "k-" + right, "--rights", right,
                              "-f", path).stdout.strip()
        return path, keys
    return ctx.once("keys", make)


def keyed(ctx):
    return ctx.once("keyed", lambda: Daemon(
        models(ctx), "--keys-file", key_file(ctx)[0], "--no-loopback-without-keys",
        "--max-auth-failures", "0"))


ALL = {"verify", "enroll", "embed", "admin"}
MATRIX = [
    ("POST", "/verify", {"verify"}), ("POST", "/enroll", {"enroll"}),
    ("POST", "/identify", {"verify"}), ("POST", "/detect", {"verify", "enroll"}),
    ("POST", "/embed", {"embed"}), ("GET", "/subjects", {"enroll"}),
    ("GET", "/subjects/a", {"enroll"}), ("PATCH", "/subjects/a", {"enroll"}),
    ("DELETE", "/subjects/a", {"enroll"}), ("GET", "/subjects/a/faces", {"enroll"}),
    ("GET", "/faces/1", {"enroll"}), ("DELETE", "/faces/1", {"enroll"}),
    ("GET", "/galleries", {"enroll"}), ("GET", "/galleries/a", {"enroll"}),
    ("DELETE", "/galleries/a", set()), ("GET", "/models", ALL), ("GET", "/info", ALL),
    ("GET", "/metrics", ALL), ("GET", "/openapi.json", ALL),
    ("GET", "/admin/models", set()), ("POST", "/admin/models", set()),
    ("GET", "/admin/models/a", set()), ("DELETE", "/admin/models/a", set()),
    ("POST", "/admin/models/a/activate", set()), ("DELETE", "/admin/models/a/activate", set()),
    ("POST", "/admin/models/rollback", set()), ("GET", "/admin/models/a/missing", set()),
]


@case("rights: only the listed cells get in")
def _(ctx):
    d, keys = keyed(ctx), key_file(ctx)[1]
    for method, path, rights in MATRIX:
        for right, key in keys.items():
            a = d.request(method, path, b"{}" if method in ("POST", "PATCH") else None,
                          {"X-Api-Key": key, "Content-Type": "application/json"})
            if right in rights or right == "admin":
                assert a.status not in (401, 403), "%s %s %s: %r" % (right, method, path, a)
            else:
                expect(a, 403, "forbidden")


@case("no key, wrong key, both header forms")
def _(ctx):
    d, keys = keyed(ctx), key_file(ctx)[1]
    for headers in ({}, {"X-Api-Key": "wrong"}, {"X-Api-Key": keys["admin"][:-1]},
                    {"X-Api-Key": keys["admin"] + "0"}, {"Authorization": "Bearer nonsense"},
                    {"Authorization": "Basic " + keys["admin"]}):
        a = expect(d.request("GET", "/info", headers=headers), 401, "unauthorized")
        assert a.headers.get("WWW-Authenticate"), "no WWW-Authenticate"
    assert d.get("/info", Authorization="Bearer " + keys["verify"]).status == 200
    assert d.request("GET", "/info", headers={"X-Api-Key": keys["verify"]}).status == 200
    assert d.get("/healthz").status == 200
    assert keys["admin"] not in d.text(), "a key is in the log"
    held = read(key_file(ctx)[0]).decode()
    for key in keys.values():
        assert key not in held and hashlib.sha256(key.encode()).hexdigest() in held


@case("many wrong keys are slowed down, a good one passes all the same")
def _(ctx):
    with Daemon(models(ctx), "--keys-file", key_file(ctx)[0], "--no-loopback-without-keys",
                "--max-auth-failures", "5") as d:
        got = [d.request("GET", "/info", headers={"X-Api-Key": "w%d" % i}) for i in range(8)]
        assert [a.status for a in got[:5]] == [401] * 5, got
        a = expect(got[-1], 429, "too_many_requests")
        assert int(a.headers["Retry-After"]) >= 1
        good = {"X-Api-Key": key_file(ctx)[1]["verify"]}
        assert d.request("GET", "/info", headers=good).status == 200
        expect(d.request("GET", "/galleries", headers=good), 403, "forbidden")
        expect(d.get("/info"), 401, "unauthorized")
        expect(d.request("GET", "/info", headers={"X-Api-Key": "w9"}), 429, "too_many_requests")
        assert d.text().count("event=wrong_key") == 5, "a blocked address fills the log"


@case("a public address without keys is refused at start")
def _(ctx):
    p = run(DAEMON, "--listen", "0.0.0.0:0", "--data-dir", ctx.path("public"), "--models",
            models(ctx), ok=False)
    assert p.returncode > 0 and "key" in p.stderr, p.stderr


# --- files ---------------------------------------------------------------------

def refuses(ctx, args, *words):
    p = run(DAEMON, "--listen", "127.0.0.1:0", *args, ok=False)
    assert p.returncode > 0, "started all the same"
    for word in words:
        assert word in p.stderr, "%r is not in: %s" % (word, p.stderr)


def with_embedder(ctx, name, change):
    where = ctx.path(name)
    os.mkdir(where)
    for path in glob.glob(os.path.join(models(ctx), "*.onnx")):
        data = read(path)
        if path.endswith("embedder.onnx"):
            data = change(data)
        with open(os.path.join(where, os.path.basename(path)), "wb") as f:
            f.write(data)
    return where


@case("damaged model file")
def _(ctx):
    for i, change in enumerate((lambda b: b[:len(b) // 2], lambda b: b"",
                                lambda b: b"\0" * 1000)):
        where = with_embedder(ctx, "damaged%d" % i, change)
        refuses(ctx, ["--data-dir", ctx.path("d1"), "--models", where], "embedder")


@case("a flipped weight is found by the golden pair")
def _(ctx):
    def change(b):
        at = len(b) // 2
        return b[:at] + bytes([255] * 64) + b[at + 64:]
    where = with_embedder(ctx, "flipped", change)
    refuses(ctx, ["--data-dir", ctx.path("d2"), "--models", where], "embedder")


@case("model without contract names the command that writes one")
def _(ctx):
    where = with_embedder(ctx, "bare", lambda b: b.replace(b"facenetd.", b"facenetx."))
    refuses(ctx, ["--data-dir", ctx.path("d3"), "--models", where], "facenetctl model import")


@case("no model directory, no such model, wrong setting")
def _(ctx):
    refuses(ctx, ["--data-dir", ctx.path("d4"), "--models", ctx.path("nowhere")], "nowhere")
    refuses(ctx, ["--data-dir", ctx.path("d4"), "--models", models(ctx), "--model", "other"],
            "other")
    refuses(ctx, ["--data-dir", ctx.path("d4"), "--models", models(ctx), "--batch-max", "0"],
            "batch-max")
    refuses(ctx, ["--data-dir", ctx.path("d4"), "--models", models(ctx), "--bach-max", "3"],
            "batch-max")


@case("second daemon on the same data")
def _(ctx):
    d = daemon(ctx)
    refuses(ctx, ["--data-dir", d.data, "--models", models(ctx)], d.data)
    assert d.get("/subjects").status == 200


@case("data directory that cannot be made or is a file")
def _(ctx):
    refuses(ctx, ["--data-dir", "/proc/facenetd", "--models", models(ctx)], "/proc/facenetd")
    file = ctx.path("data-is-a-file")
    with open(file, "w") as f:
        f.write("mine")
    refuses(ctx, ["--data-dir", file, "--models", models(ctx)], file)
    assert read(file) == b"mine", "the file was changed"


@case("data directory that may only be read")
def _(ctx):
    where = ctx.path("readonly")
    os.mkdir(where)
    if os.geteuid() != 0:
        os.chmod(where, 0o500)
        refuses(ctx, ["--data-dir", where, "--models", models(ctx)], where)
        return
    # Modes do not bind root: a file system mounted for reading does.
    script = ('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; '
              'exec "$2" --listen 127.0.0.1:0 --data-dir "$1" --models "$3"')
    try:
        p = run("unshare", "-m", "sh", "-c", script, "sh", where, DAEMON, models(ctx), ok=False)
    except FileNotFoundError:
        raise Skip("root, and no unshare")
    if p.returncode == 99 or "unshare" in p.stderr:
        raise Skip("root, and may not mount")
    assert p.returncode > 0 and where in p.stderr, p.stderr


# --- signals -------------------------------------------------------------------

@case("SIGTERM answers what is in flight, then ends with 0")
def _(ctx):
    d = Daemon(models(ctx))
    photo = made(ctx, "plain", "1600", "1200")
    answers = []

    def post():
        answers.append(d.post("/detect", photo).status)
    threads = [threading.Thread(target=post) for _ in range(6)]
    for t in threads:
        t.start()
    end = time.monotonic() + PATIENCE
    while d.metric("facenetd_in_flight") < 4 and not answers and time.monotonic() < end:
        pass
    code = d.stop()
    for t in threads:
        t.join()
    assert code == 0, "exit %d" % code
    assert set(answers) <= {200, 503} and 200 in answers and len(answers) == 6, answers


@case("SIGTERM does not wait for an upload that stands still")
def _(ctx):
    d = Daemon(models(ctx), "--body-ms", "600000", "--drain-ms", "600000")
    s = d.connect()
    s.sendall(b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
              b"Content-Length: 100000\r\n\r\n" + b"y" * 5000)
    end = time.monotonic() + PATIENCE
    while d.metric("facenetd_buffered_bytes") < 5000:
        assert time.monotonic() < end, "the upload does not arrive"
    code = d.stop()  # fails when it takes longer than PATIENCE
    s.close()
    assert code == 0, "exit %d" % code


@case("SIGHUP reads keys and settings again")
def _(ctx):
    path = ctx.path("reload.conf")
    with open(path, "w") as f:
        f.write("threshold = 0.5\n")
    with Daemon(models(ctx), "--config", path) as d:
        assert d.get("/info").json["model"]["threshold_in_use"] == 0.5
        with open(path, "w") as f:
            f.write("threshold = 0.75\nmax-scans = 7\n")
        d.signal(signal.SIGHUP)
        d.wait_log(r"event=reload")
        end = time.monotonic() + PATIENCE
        while d.get("/info").json["model"]["threshold_in_use"] != 0.75:
            assert time.monotonic() < end, "the new setting does not count"
        limits = d.get("/info").json["limits"]
        assert limits["max_scans"] != 7, "this one needs a restart"
        with open(path, "w") as f:
            f.write("threshold = nonsense\n")
        n = len(d.log)
        d.signal(signal.SIGHUP)
        while not any("threshold" in line for line in d.log[n:]):
            assert time.monotonic() < end + PATIENCE
            time.sleep(0.02)
        assert d.get("/info").json["model"]["threshold_in_use"] == 0.75


@case("overload is answered 503 with Retry-After")
def _(ctx):
    photo = made(ctx, "plain", "2000", "1500")
    with Daemon(models(ctx), "--deadline-ms", "600000", "--queue-faces", "2", "--batch-max", "2",
                "--workers", "1") as d:
        answers = []
        lock = threading.Lock()
        end = time.monotonic() + PATIENCE

        def post():
            """Until both answers were seen: that two requests are let in, and
            that a third meets them, is a matter of tries, not of speed."""
            while time.monotonic() < end:
                try:
                    a = d.post("/detect", photo)
                except OSError as e:
                    a = e
                with lock:
                    answers.append(a)
                    if {200, 503} <= {getattr(x, "status", x) for x in answers}:
                        return
        threads = [threading.Thread(target=post) for _ in range(8)]
        for t in threads:
            t.start()
        live = d.get("/healthz")
        for t in threads:
            t.join()
        assert live.status == 200
        statuses = [getattr(a, "status", a) for a in answers]
        assert set(statuses) == {200, 503}, statuses
        for a in answers:
            if a.status == 503:
                assert int(a.headers["Retry-After"]) >= 1
                assert a.json["retryable"] is True and a.json["code"] == "queue_full", repr(a)


# --- the command line ------------------------------------------------------------

@case("facenetctl: help of every command, errors with exit 2")
def _(ctx):
    for command in ("verify", "enroll", "identify", "detect", "subjects", "faces", "galleries",
                    "info", "model", "keys", "evaluate", "calibrate", "train",
                    "train-detector"):
        assert "usage" in run(CTL, command, "--help").stdout, command
    for verb in ("import", "info", "new"):
        assert "usage" in run(CTL, "model", verb, "--help").stdout, verb
    assert run(CTL, "nonsense", ok=False).returncode == 2
    p = run(CTL, "verify", "--server", "http://127.0.0.1:1", "/nonexistent", "/nonexistent",
            ok=False)
    assert p.returncode == 2 and "/nonexistent" in p.stderr, p.stderr


@case("facenetctl: model info agrees with itself")
def _(ctx):
    path = os.path.join(models(ctx), "embedder.onnx")
    info = json.loads(run(CTL, "model", "info", path, "--json").stdout)
    assert info["contract"]["crop"] == "arcface-112" and len(info["id"]) == 64
    assert sum(row["macs"] for row in info["layers"]) == info["macs"]
    text = run(CTL, "model", "info", path, "--check").stdout
    assert info["id"] in text and "golden pair holds" in text


@case("facenetctl: thresholds do not change a model's id, anything else does")
def _(ctx):
    def imported(name, *args):
        path = ctx.path(name)
        run(CTL, "model", "import", os.path.join(models(ctx), "embedder.onnx"), "--crop",
            "arcface-112", "--scale", "none", *args, "-o", path)
        return json.loads(run(CTL, "model", "info", path, "--json").stdout)
    bare = imported("bare.onnx")
    given = imported("given.onnx", "--threshold", "0.01:1.5:3000:30")
    assert given["contract"]["thresholds"] != bare["contract"]["thresholds"]
    assert given["id"] == bare["id"] == hashlib.sha256(read(ctx.path("bare.onnx"))).hexdigest()
    assert imported("other.onnx", "--licence", "BSD")["id"] != bare["id"]


@case("facenetctl: a refused photo is exit 2 and named")
def _(ctx):
    d = daemon(ctx)
    bad = ctx.path("bad.jpg")
    with open(bad, "wb") as f:
        f.write(b"not a photo")
    good = ctx.path("good.jpg")
    with open(good, "wb") as f:
        f.write(plain(ctx))
    server = "http://127.0.0.1:%d" % d.port
    p = run(CTL, "verify", "--server", server, good, bad, ok=False)
    assert p.returncode == 2 and "image" in p.stderr, p.stderr
    assert run(CTL, "subjects", "--server", server).stdout == ""
    assert run(CTL, "info", "--server", server).returncode == 0


@case("facenetctl: the man page names the options that exist, and all of them")
def _(ctx):
    page = read(os.path.join(os.path.dirname(__file__), "..", "..", "man",
                             "facenetctl.1")).decode().replace("\\-", "-")
    told = set(re.findall(r"--[a-z][a-z-]*", page))
    helps = [["verify"], ["enroll"], ["identify"], ["detect"], ["subjects"], ["faces"],
             ["galleries"], ["info"], ["model", "import"], ["model", "info"], ["model", "new"],
             ["keys"], ["evaluate"], ["calibrate"], ["align"], ["train"],
             ["train-detector"]]
    text = "".join(run(CTL, *h, "--help").stdout for h in helps)
    real = set(re.findall(r"--[a-z][a-z-]*", text)) - {"--file"}
    assert told - {"--help"} == real - {"--help"}, told ^ real


@case("facenetctl: train-detector refuses, each with a word of why")
def _(ctx):
    usual = ["--data-dir", ctx.path("nobody"), "--teacher", models(ctx), "--out",
             ctx.path("detector")]
    for bad, says in (([], "--data-dir"), (usual[:4], "--out"), (usual + ["--stage", "x"], "x"),
                      (usual + ["--batches", "1,2"], "1,2"), (usual + ["--rate", "0"], "rate"),
                      (usual + ["stray"], "operands"), (usual, "nobody")):
        p = run(CTL, "train-detector", *bad, ok=False)
        assert p.returncode == 2 and says in p.stderr, (bad, p.stderr)


def train_arguments():
    """Rows of core/train/args.def: kind, name, a value that is taken."""
    text = read(os.path.join(os.path.dirname(__file__), "..", "..", "core", "train",
                             "args.def")).decode()
    rows = re.findall(r'^ARG_(TEXT|INT|REAL|FLAG|CHOICE)\((\w+), ("[^"]*"|[^,]*),', text, re.M)
    assert len(rows) == text.count("\nARG_") - text.count("\nARG_SECTION"), len(rows)
    return [(kind, name, value.strip('"')) for kind, name, value in rows]


@case("facenetctl: train --help has every argument of args.def, and all are taken")
def _(ctx):
    rows = train_arguments()
    told = re.findall(r"^  --([a-z-]+)", run(CTL, "train", "--help").stdout, re.M)
    assert told == [name.replace("_", "-") for _, name, _ in rows], told
    options = []
    for kind, name, value in rows:
        if name in ("progress_fd", "pretrained_model", "distill", "resume", "holdout_dir",
                    "crop", "scale", "freeze_until", "arch"):
            value = {"progress_fd": "2"}.get(name, "")
        if name == "data_dir":
            value = ctx.path("nobody")
        options += ["--" + name] if kind == "FLAG" and name != "harmonic" else \
            ["--%s=%s" % (name.replace("_", "-"), value)]
    p = run(CTL, "train", *options, "--model-def", "mobilefacenet_small", "--image-size", "112",
            "--learning-rate", "0.1", ok=False)
    assert p.returncode == 2 and "data_dir" in p.stderr and "nobody" in p.stderr, p.stderr
    result = [json.loads(line) for line in p.stderr.splitlines() if line.startswith("{")][-1]
    assert result["event"] == "result" and result["outcome"] == "failed", result
    assert result["model"] is None and "nobody" in result["text"], result
    for bad, says in ((["--learning-rate", "nan"], "learning_rate"), (["--batch", "3"], "batch"),
                      (["--optimizer", "SGD"], "optimizer"), (["stray"], "stray"),
                      (["--progress-fd", "999"], "progress_fd"), (["--seed"], "seed"),
                      ([], "data-dir")):
        p = run(CTL, "train", *bad, ok=False)
        assert p.returncode == 2 and says in p.stderr, (bad, p.stderr)
