"""Cases of the models' life: uploads, activation, rollback, kill -9."""

import os
import shutil

from cases_plain import models
from client import CTL, Daemon, expect, multipart, read, run

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


@case("an upload that cannot be used is refused and leaves nothing")
def _(ctx):
    d = daemon(ctx)
    before = sorted(os.listdir(os.path.join(d.data, "models")))
    good = read(network(ctx, 101))
    at = len(good) // 2  # within the weights
    broken = good[:at] + bytes([good[at] ^ 0x41] * 64) + good[at + 64:]
    detector = read(os.path.join(models(ctx), "detector_pnet.onnx"))
    expect(d.request("POST", "/admin/models", b"", ONNX), 400, "bad_request")
    for body, says in ((b"no model at all\n" * 99, "model"), (good[:-1000], "model"),
                       (broken, "golden"), (detector, "detector")):
        a = expect(d.request("POST", "/admin/models", body, ONNX), 422, "bad_model")
        assert says in a.json["detail"], repr(a)
        assert d.data not in a.body.decode() and "/" not in a.json["detail"], repr(a)
    for fields in ([("model", good), ("model", good)], [("modl", good)], [("threshold", "1")]):
        body, kind = multipart(fields)
        expect(d.request("POST", "/admin/models", body, {"Content-Type": kind}), 400, "bad_field")
    expect(d.post("/admin/models", {"model": "AAAA"}), 415, "unsupported_media_type")
    assert sorted(os.listdir(os.path.join(d.data, "models"))) == before


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
