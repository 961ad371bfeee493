"""Cases of the models' life: uploads, activation, rollback, kill -9."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import struct
import tempfile
import threading
import time
import zlib

from cases_plain import models
from client import CTL, PATIENCE, Daemon, expect, multipart, read, run

CASES = []
ONNX = {"Content-Type": "application/octet-stream"}


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def network(ctx, seed, *more):
    """The file of a tiny model of its own; the same seed makes the same."""
    def make():
        path = ctx.path("network-%d%s.onnx" % (seed, "".join(more)))
        run(CTL, "model", "new", "--arch", "mobilefacenet", "--seed", str(seed), "-o", path, *more)
        return path
    return ctx.once("network-%d%s" % (seed, more), make)


# --- a detector without trained weights ------------------------------------------

def fields(data, at, end):
    """Fields of a protobuf message: number, and the range of those with a length."""
    def varint(at):
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value, at
    while at < end:
        key, at = varint(at)
        if key & 7 == 2:
            length, at = varint(at)
            yield key >> 3, at, at + length
            at += length
        elif key & 7 == 0:
            at = varint(at)[1]
        else:
            at += 4 if key & 7 == 5 else 8


def weights_of(onnx):
    """Where the floats of each initializer lie."""
    found = {}
    for number, at, end in fields(onnx, 0, len(onnx)):
        for inner, start, stop in fields(onnx, at, end) if number == 7 else ():
            if inner == 5:
                part = {n: (a, b) for n, a, b in fields(onnx, start, stop)}
                if 8 in part and 9 in part:
                    found[bytes(onnx[slice(*part[8])]).decode()] = part[9]
    return found


# left eye, right eye, nose, corners of the mouth: x, then y, of the box's side
POINTS = (0.3, 0.7, 0.5, 0.35, 0.65, 0.4, 0.4, 0.6, 0.75, 0.75)
LAST = {"pnet": ("conv4_1", "box"), "rnet": ("dense5_1", "box"),
        "onet": ("dense6_1", "box", "landmarks")}


def detector(where, kind):
    """One that sees a face everywhere, whose points lie where a face's do."""
    raw = os.path.join(where, kind + ".raw")
    run(CTL, "model", "new", "--arch", "mtcnn_" + kind, "--seed", "7", "-o", raw)
    onnx = bytearray(read(raw))
    at = weights_of(onnx)
    for layer, bias in zip(LAST[kind], ((0, 5), (0, 0, 0, 0), POINTS)):
        for name, values in ((layer + ".weight", None), (layer + ".bias", bias)):
            start, stop = at[name]
            values = values or [0] * ((stop - start) // 4)
            onnx[start:stop] = struct.pack("<%df" % len(values), *values)
    with open(raw, "wb") as f:
        f.write(onnx)
    run(CTL, "model", "import", raw, "-o", os.path.join(where, "detector_%s.onnx" % kind),
        "--kind", "mtcnn-" + kind, "--scale", "fixed:127.5,128")
    os.remove(raw)


def seeing(ctx):
    """Models whose detector finds a face in every picture."""
    def make():
        where = ctx.path("seeing")
        os.mkdir(where)
        shutil.copy(network(ctx, 7), os.path.join(where, "embedder.onnx"))
        for kind in LAST:
            detector(where, kind)
        return where
    return ctx.once("seeing", make)


def picture(seed, side=20):
    """Coloured squares, as a PNG of 120x100."""
    r = random.Random(seed)
    rows = b""
    for _ in range(100 // side):
        line = b"".join(bytes(r.randrange(256) for _ in range(3)) * side
                        for _ in range(120 // side))
        rows += (b"\0" + line) * side

    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data +
                struct.pack(">I", zlib.crc32(kind + data)))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 120, 100, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def daemon(ctx):
    return ctx.once("models-daemon", lambda: Daemon(models(ctx)))


def upload(d, path, status=201):
    return expect(d.request("POST", "/admin/models", read(path), ONNX), status).json


# --- uploads --------------------------------------------------------------------

@case("an uploaded model is kept under its digest, once")
def _(ctx):
    d = daemon(ctx)
    rows = d.get("/admin/models").json["models"]
    assert [r["state"] for r in rows] == ["active"] and not rows[0]["removable"], rows
    assert rows[0]["id"] == d.get("/info").json["model"]["id"]
    path = network(ctx, 100)
    row = upload(d, path)
    assert row["state"] == "available" and row["removable"] and row["embedding_size"] == 128, row
    kept = os.path.join(d.data, "models", row["id"] + ".onnx")
    assert read(kept) == read(path) and os.stat(kept).st_mode & 0o777 == 0o600
    body, kind = multipart([("model", read(path))])
    for again in (upload(d, path, 200),
                  expect(d.request("POST", "/admin/models", body, {"Content-Type": kind}),
                         200).json):
        assert dict(again, added=row["added"]) == row, again
    ids = [r["id"] for r in d.get("/admin/models").json["models"]]
    assert len(ids) == 2 and row["id"] in ids, ids
    assert sorted(os.listdir(os.path.join(d.data, "models"))) == [row["id"] + ".onnx"]


def costly():
    """An embedder of one convolution, 256 x 3 x 15 x 15 at 1024 x 1024: 181
    billion multiplications in a file of 700 KB."""
    def varint(n):
        out = b""
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n])

    def put(number, value):
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        value = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(value)) + value

    def ints(name, *values):
        return put(5, put(1, name) + b"".join(put(8, v) for v in values) + put(20, 7))

    def value(name, *dims):
        shape = b"".join(put(1, put(1, d)) for d in dims)
        return put(1, name) + put(2, put(1, put(1, 1) + put(2, shape)))

    def node(op, inputs, output, attributes=b""):
        return put(1, b"".join(put(1, i) for i in inputs) + put(2, output) + put(4, op) +
                   attributes)
    weights = (b"".join(put(1, d) for d in (256, 3, 15, 15)) + put(2, 1) + put(8, "w") +
               put(9, bytes(256 * 3 * 15 * 15 * 4)))
    graph = (node("Conv", "xw", "c", ints("kernel_shape", 15, 15) + ints("pads", 7, 7, 7, 7)) +
             node("GlobalAveragePool", "c", "p") +
             node("Flatten", "p", "y", put(5, put(1, "axis") + put(3, 1) + put(20, 2))) +
             put(2, "g") + put(5, weights) + put(11, value("x", 1, 3, 1024, 1024)) +
             put(12, value("y", 1, 256)))
    contract = {"version": "1", "kind": "embedder", "crop": "box-margin:0,1024",
                "scale": "none", "channels": "rgb", "dim": "256", "normalised": "0",
                "golden": " ".join(["1"] * 256)}
    return (put(1, 8) + put(7, graph) + put(8, put(2, 13)) +
            b"".join(put(14, put(1, "facenetd." + k) + put(2, v)) for k, v in contract.items()))


@case("an upload that cannot be used is refused and leaves nothing")
def _(ctx):
    d = daemon(ctx)

    def kept():
        where = os.path.join(d.data, "models")
        return sorted(os.listdir(where)) if os.path.exists(where) else []
    before = kept()
    good = read(network(ctx, 101))
    at = len(good) // 2  # within the weights
    broken = good[:at] + bytes([good[at] ^ 0x41] * 64) + good[at + 64:]
    detector = read(os.path.join(models(ctx), "detector_pnet.onnx"))
    expect(d.request("POST", "/admin/models", b"", ONNX), 400, "bad_request")
    for body, says in ((b"no model at all\n" * 99, "model"), (good[:-1000], "model"),
                       (broken, "golden"), (detector, "detector"),
                       (costly(), "181193 million")):
        a = expect(d.request("POST", "/admin/models", body, ONNX), 422, "bad_model")
        assert says in a.json["detail"], repr(a)
        assert d.data not in a.body.decode() and "/" not in a.json["detail"], repr(a)
    for fields in ([("model", good), ("model", good)], [("modl", good)], [("threshold", "1")]):
        body, kind = multipart(fields)
        expect(d.request("POST", "/admin/models", body, {"Content-Type": kind}), 400, "bad_field")
    expect(d.post("/admin/models", {"model": "AAAA"}), 415, "unsupported_media_type")
    assert kept() == before


@case("a removed model's thresholds go with it")
def _(ctx):
    data = ctx.path("removed-thresholds")
    with Daemon(models(ctx), data=data) as d:
        model = upload(d, network(ctx, 103))["id"]
    path = os.path.join(data, "thresholds.json")
    row = {"far": 0.01, "threshold": 1.2, "pairs": 900, "accepted": 9}
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"version": 1, "models": {model: [row], "0" * 64: [row]}}, f)
    with Daemon(models(ctx), data=data) as d:
        expect(d.request("DELETE", "/admin/models/" + model), 200, deleted=model)
        assert list(json.loads(read(path))["models"]) == ["0" * 64]
        expect(d.request("DELETE", "/admin/models/" + model), 404, "model_not_found")


@case("an upload over max-model-bytes is refused; what a crash left is swept")
def _(ctx):
    path = network(ctx, 100)
    with Daemon(models(ctx), "--max-model-bytes", "64K") as d:
        assert b"413" in d.raw(b"POST /admin/models HTTP/1.1\r\nHost: localhost\r\n"
                               b"Content-Type: application/octet-stream\r\n"
                               b"Content-Length: %d\r\n\r\n" % os.path.getsize(path)).split(b"\r")[0]
        data = d.data + "-kept"
        shutil.copytree(d.data, data)
    os.makedirs(os.path.join(data, "models"))
    left = os.path.join(data, "models", ".import-abcdef")
    with open(left, "wb") as f:
        f.write(b"half a model")
    try:
        with Daemon(models(ctx), data=data) as d:
            assert not os.path.exists(left)
            assert len(d.get("/admin/models").json["models"]) == 1
    finally:
        shutil.rmtree(data)


# --- from one model to another -----------------------------------------------------

SIGHT = ("--min-face", "80")
PER_SUBJECT = 8


def subject_of(seed):
    return "s%d" % (seed // PER_SUBJECT)


def fill(d, n, first=0):
    """n faces, PER_SUBJECT each, from pictures first, first + 1, …"""
    for start in range(first, first + n, PER_SUBJECT):
        seeds = range(start, min(start + PER_SUBJECT, first + n))
        a = expect(d.post("/enroll", [("subject", subject_of(start)), ("faces", "largest")] +
                          [("image", picture(seed)) for seed in seeds]), 201)
        assert len(a.json["faces"]) == len(seeds), repr(a)


def identify(d, seed):
    """The model, and who is near: (subject, face, distance)."""
    a = expect(d.post("/identify", [("image", picture(seed)), ("threshold", "4")]), 200).json
    return a["model"]["id"], [(c["subject"], c["face"], c["distance"])
                              for c in a["faces"][0]["candidates"]]


def model(d, ident):
    return expect(d.get("/admin/models/" + ident), 200).json


def activate(d, ident, status=202, code=None, **body):
    return expect(d.post("/admin/models/%s/activate" % ident, body) if body else
                  d.request("POST", "/admin/models/%s/activate" % ident), status, code)


def rollback(d, **body):
    a = d.post("/admin/models/rollback", body)
    assert a.status in (200, 202), repr(a)
    return a.json


def wait_until(what, patience=5 * PATIENCE):
    end = time.monotonic() + patience
    while True:
        got = what()
        if got:
            return got
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def wait_state(d, ident, state="active"):
    def there():
        row = model(d, ident)
        assert row["state"] in (state, "embedding"), row
        return row if row["state"] == state else None
    return wait_until(there)


def wait_embedded(d, ident, n=None):
    """Until the model lacks no face that it can embed, or has n."""
    def enough():
        faces = model(d, ident)["faces"]
        return faces["missing"] == faces["without_crop"] if n is None else faces["embedded"] >= n
    return wait_until(enough)


def found(d, seeds, ident, most=0.02):
    """Each picture is found as its own subject, by this model."""
    for seed in seeds:
        by, near = identify(d, seed)
        assert by == ident, (by, ident)
        assert near and near[0][0] == subject_of(seed) and near[0][2] < most, (seed, near[:2])


@contextlib.contextmanager
def data_dir():
    where = tempfile.mkdtemp(prefix="facenetd-http-")
    try:
        yield where
    finally:
        shutil.rmtree(where)


@case("activation embeds every face, then model and gallery switch together; and back at once")
def _(ctx):
    with Daemon(seeing(ctx), *SIGHT) as d:
        old = d.get("/info").json["model"]["id"]
        fill(d, 40)
        new = upload(d, network(ctx, 100))["id"]
        probes = (3, 20, 39, 77)
        answers = {old: {p: identify(d, p)[1] for p in probes}}
        seen, stop = [], threading.Event()

        def look():
            while not stop.is_set():
                for p in probes:
                    seen.append((p, identify(d, p)))
        thread = threading.Thread(target=look)
        thread.start()
        row = activate(d, new).json
        assert row["state"] in ("embedding", "active") and row["id"] == new, row
        row = wait_state(d, new)
        assert row["faces"] == {"embedded": 40, "missing": 0, "without_crop": 0}, row
        assert d.get("/info").json["model"]["id"] == new
        assert model(d, old)["state"] == "previous"
        answers[new] = {p: identify(d, p)[1] for p in probes}
        back = rollback(d)
        assert back["id"] == old
        wait_state(d, old)
        assert identify(d, 3) == (old, answers[old][3])
        assert rollback(d)["id"] == new  # forward again
        wait_state(d, new)
        n = len(seen)
        wait_until(lambda: len(seen) > n + 8)
        stop.set()
        thread.join()
        assert {by for _, (by, _) in seen} == {old, new}
        for p, (by, near) in seen:
            assert near == answers[by][p], (p, by, near, answers[by][p])
        found(d, (3, 20, 39), new)
        text = d.get("/metrics").body.decode()
        assert "facenetd_reembed_faces_total 40" in text, text
        assert "facenetd_model_switches_total 3" in text, text
    # The same pictures, enrolled with the new model from the start.
    with data_dir() as data:
        shutil.copytree(seeing(ctx), data + "/models-new")
        shutil.copy(network(ctx, 100), data + "/models-new/embedder.onnx")
        with Daemon(data + "/models-new", *SIGHT, data=data + "/data") as d:
            fill(d, 40)
            for p in probes:
                by, near = identify(d, p)
                assert by == new
                for (s, f, x), (_, _, y) in zip(near[:1], answers[new][p][:1]):
                    assert abs(x - y) < 0.05, (p, near[:2], answers[new][p][:2])


@case("enrolments and erasures while models are switched")
def _(ctx):
    with Daemon(seeing(ctx), *SIGHT) as d:
        old = d.get("/info").json["model"]["id"]
        fill(d, 16)
        new = upload(d, network(ctx, 100))["id"]
        answers = []

        def enroll(seeds):
            for seed in seeds:
                answers.append(d.post("/enroll", [
                    ("subject", subject_of(seed)), ("faces", "largest"),
                    ("image", picture(seed))]))
        threads = [threading.Thread(target=enroll, args=(range(16 + k, 40, 2),)) for k in (0, 1)]
        for t in threads:
            t.start()
        activate(d, new)
        expect(d.delete("/subjects/s1"), 200)
        wait_state(d, new)
        # Back and forth, at once where no face is missing, under enrolments.
        while any(t.is_alive() for t in threads):
            rollback(d)
        for t in threads:
            t.join()
        for a in answers:
            expect(a, 201)
            assert a.json["model"]["id"] in (old, new)
        wait_until(lambda: d.get("/info").json["activating"] is None)
        kept = [p for p in range(40) if subject_of(p) != "s1"]
        for _ in range(3):
            active = d.get("/info").json["model"]["id"]
            assert model(d, active)["faces"]["missing"] == 0
            found(d, kept, active)
            assert all(s != "s1" for s, _, _ in identify(d, 9)[1])
            other = rollback(d)["id"]
            assert other != active
            wait_state(d, other)


@case("kill -9 while faces are embedded, again and again: it goes on and switches")
def _(ctx):
    with data_dir() as data:
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            old = d.get("/info").json["model"]["id"]
            fill(d, 64)
            new = upload(d, network(ctx, 100))["id"]
            before = {p: identify(d, p) for p in (1, 40)}
            activate(d, new)
            d.kill()
        had = 0
        for _ in range(6):
            d = Daemon(seeing(ctx), *SIGHT, data=data)
            row = model(d, new)
            assert row["state"] in ("embedding", "active"), row
            assert row["faces"]["embedded"] >= had, (had, row)
            if row["state"] == "embedding":
                for p, (by, near) in before.items():
                    got = identify(d, p)
                    assert got == (by, near) or got[0] == new, (got, near)
            had = wait_until(lambda: max(model(d, new)["faces"]["embedded"], 0)
                             if model(d, new)["faces"]["embedded"] > had or
                             model(d, new)["state"] == "active" else 0)
            d.kill()
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            wait_state(d, new)
            found(d, range(0, 64, 7), new)
            d.kill()  # as soon as it is active
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            assert d.get("/info").json["model"]["id"] == new
            assert "configured=" + old in d.text()
            found(d, (0, 63), new)
            assert rollback(d)["id"] == old
            wait_state(d, old)
            for p, answer in before.items():
                assert identify(d, p) == answer


@case("kill -9 during a rollback that has to catch up")
def _(ctx):
    with data_dir() as data:
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            old = d.get("/info").json["model"]["id"]
            fill(d, 8)
            new = upload(d, network(ctx, 100))["id"]
            activate(d, new)
            wait_state(d, new)
            fill(d, 24, 8)
            rollback(d)
            d.kill()
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            wait_state(d, old)
            found(d, range(32), old)
            assert model(d, new)["state"] == "previous"


@case("faces without a crop are told, listed, left behind on demand, and found again")
def _(ctx):
    with data_dir() as data:
        with Daemon(seeing(ctx), *SIGHT, "--no-keep-crops", data=data) as d:
            fill(d, 3, 800)
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            old = d.get("/info").json["model"]["id"]
            fill(d, 8)
            new = upload(d, network(ctx, 100))["id"]
            a = activate(d, new, 409, "conflict")
            assert "3 faces" in a.json["detail"] and "allow_missing" in a.json["detail"], repr(a)
            assert model(d, new)["state"] == "available"
            page = expect(d.get("/admin/models/%s/missing?limit=2" % new), 200).json
            assert [f["subject"] for f in page["faces"]] == [subject_of(800)] * 2, page
            assert not page["faces"][0]["crop"]
            page = expect(d.get("/admin/models/%s/missing?limit=2&after=%d" % (
                new, page["next"])), 200).json
            assert len(page["faces"]) == 1 and page["next"] is None, page
            activate(d, new, allow_missing=True)
            row = wait_state(d, new)
            assert row["faces"] == {"embedded": 8, "missing": 3, "without_crop": 3}, row
            found(d, range(8), new)
            assert all(s != subject_of(800) for s, _, _ in identify(d, 800)[1])
            assert rollback(d)["id"] == old
            wait_state(d, old)
            found(d, (0, 7, 800, 802), old)
        # A face that only the active model knows is in a rollback's way.
        with Daemon(seeing(ctx), *SIGHT, "--no-keep-crops", data=data) as d:
            fill(d, 1, 900)
            expect(d.post("/admin/models/rollback", {}), 409, "conflict")
            assert d.get("/info").json["model"]["id"] == old


@case("a crop that is damaged fails an activation, by name")
def _(ctx):
    with data_dir() as data:
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            old = d.get("/info").json["model"]["id"]
            fill(d, 16)
            new = upload(d, network(ctx, 100))["id"]
        db = sqlite3.connect(os.path.join(data, "facenetd.db"))
        db.execute("UPDATE face SET crop = x'ffd8ffd9' WHERE id = 5")
        db.commit()
        db.close()
        with Daemon(seeing(ctx), *SIGHT, data=data) as d:
            activate(d, new)
            row = wait_state(d, new, "failed")
            assert row["error"]["code"] == "conflict" and "face 5:" in row["error"]["detail"], row
            assert d.get("/info").json["model"]["id"] == old
            assert row["faces"] == {"embedded": 15, "missing": 1, "without_crop": 0}, row
            activate(d, new, allow_missing=True)
            row = wait_state(d, new)
            assert row["error"] is None
            found(d, (0, 3, 5, 15), new)  # picture 4 was face 5
            rollback(d)
            wait_state(d, old)
            found(d, range(16), old)


@case("what activation, rollback and removal refuse")
def _(ctx):
    with Daemon(seeing(ctx), *SIGHT) as d:
        active = d.get("/info").json["model"]["id"]
        fill(d, 8)
        one, two = (upload(d, network(ctx, seed))["id"] for seed in (100, 101))
        for path in ("/admin/models/" + "0" * 64, "/admin/models/nothing",
                     "/admin/models/nothing/missing"):
            expect(d.get(path), 404, "model_not_found")
        activate(d, "0" * 64, 404, "model_not_found")
        activate(d, active, 409, "conflict")
        expect(d.post("/admin/models/rollback", {}), 409, "conflict")
        expect(d.delete("/admin/models/%s/activate" % one), 409, "conflict")
        expect(d.delete("/admin/models/" + active), 409, "conflict")
        for body, code in (({"allow": True}, "bad_field"), ({"allow_missing": 1}, "bad_field")):
            activate(d, one, 400, code, **body)
        expect(d.request("POST", "/admin/models/%s/activate" % one, b"[",
                         {"Content-Type": "application/json"}), 400, "bad_json")
        expect(d.request("POST", "/admin/models/%s/activate" % one, b"x",
                         {"Content-Type": "image/jpeg"}), 415, "unsupported_media_type")
        expect(d.get("/admin/models/%s/missing?limit=0" % one), 400, "bad_field")
        assert d.get("/info").json["model"]["id"] == active
        # One wish takes the place of another.
        activate(d, one)
        activate(d, two)
        wait_state(d, two)
        assert model(d, one)["state"] in ("available", "previous")
        info = d.get("/info").json
        assert info["model"]["id"] == two and info["activating"] is None
        assert info["previous_model"] == (one if model(d, one)["state"] == "previous" else active)
        expect(d.delete("/admin/models/" + two), 409, "conflict")
        expect(d.delete("/admin/models/" + info["previous_model"]), 409, "conflict")
        # A cancelled one is embedded no further; what it has stays.
        three = upload(d, network(ctx, 102))["id"]
        activate(d, three)
        a = d.delete("/admin/models/%s/activate" % three)
        assert a.status in (200, 409), repr(a)
        if a.status == 200:
            assert a.json["state"] == "available" and d.get("/info").json["model"]["id"] == two
            expect(d.delete("/admin/models/" + three), 200, deleted=three)
            expect(d.get("/admin/models/" + three), 404, "model_not_found")
            assert upload(d, network(ctx, 102))["faces"]["embedded"] == 0


@case("the setting model wins where it changes; without its file the setting's serves")
def _(ctx):
    with data_dir() as data:
        where = data + "/models-two"
        shutil.copytree(seeing(ctx), where)
        shutil.copy(network(ctx, 101), where + "/second.onnx")
        with Daemon(where, *SIGHT, data=data + "/data") as d:
            first = d.get("/info").json["model"]["id"]
            fill(d, 16)
            third = upload(d, network(ctx, 100))["id"]
            activate(d, third)
            wait_state(d, third)
        with Daemon(where, *SIGHT, "--model", "second", data=data + "/data") as d:
            second = d.get("/info").json["model"]["id"]
            assert second not in (first, third) and "was=" + third in d.text()
            wait_embedded(d, second)
            found(d, range(16), second)
            assert model(d, third)["state"] == "previous"
            assert rollback(d)["id"] == third
            wait_state(d, third)
            found(d, range(16), third)
        os.remove(os.path.join(data, "data", "models", third + ".onnx"))
        with Daemon(where, *SIGHT, "--model", "second", data=data + "/data") as d:
            assert d.get("/info").json["model"]["id"] == second
            assert "is gone" in d.text()
            found(d, range(16), second)
            d.wait_log("no way back")
            expect(d.post("/admin/models/rollback", {}), 404, "model_not_found")
