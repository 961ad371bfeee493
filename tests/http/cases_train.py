"""facenetctl train as a program sees it: JSON lines, exit statuses, signals,
resuming. Photos are patterns; networks have random weights, or the test data's
where they are there."""

import json
import os
import random
import signal
import struct
import subprocess
import zlib

import cases_faces
from client import BUILD, CTL, PATIENCE, read, run

CASES = []


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def png(rows, side):
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data +
                struct.pack(">I", zlib.crc32(kind + data)))
    raw = b"".join(b"\0" + rows[y * side * 3:(y + 1) * side * 3] for y in range(side))
    return (b"\x89PNG\r\n\x1a\n" +
            chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))


def people(ctx):
    """Eight people of four photos: squares of colour, noise."""
    def make():
        where, side = ctx.path("patterns"), 112
        for p in range(8):
            colours = random.Random(p)
            squares = [[[colours.randrange(40, 216) for _ in range(3)] for _ in range(4)]
                       for _ in range(4)]
            os.makedirs(os.path.join(where, "p%d" % p))
            for i in range(4):
                noise = random.Random(100 * p + i)
                rows = bytes(max(0, min(255, c + noise.randrange(-40, 40)))
                             for y in range(side) for x in range(side)
                             for c in squares[y // 28][x // 28])
                with open(os.path.join(where, "p%d" % p, "%d.png" % i), "wb") as f:
                    f.write(png(rows, side))
        return where
    return ctx.once("patterns", make)


def small_model(ctx):
    def make():
        path = ctx.path("small.onnx")
        run(CTL, "model", "new", "--arch", "mobilefacenet_small", "--embedding-size", "16",
            "--seed", "3", "-o", path)
        return path
    return ctx.once("small-model", make)


def command(ctx, model, name, *more):
    return [CTL, "train", "--data-dir", people(ctx), "--pretrained-model", model,
            "--aligned", "yes", "--batch-size", "6", "--people-per-batch", "3",
            "--images-per-person", "4", "--epoch-size", "2", "--max-nrof-epochs", "2",
            "--holdout", "0.5", "--threads", "1", "--optimizer", "MOM",
            "--logs-base-dir", ctx.path(name + "/logs"),
            "--models-base-dir", ctx.path(name + "/models"), *more]


def train(argv, stop_at=None):
    """Exit status, the JSON lines, stdout. stop_at: SIGTERM at this event."""
    r, w = os.pipe()
    p = subprocess.Popen(argv + ["--progress-fd", str(w)], pass_fds=(w,),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.close(w)
    lines = []
    with os.fdopen(r) as f:
        for line in f:
            lines.append(json.loads(line))
            if lines[-1]["event"] == stop_at:
                p.send_signal(signal.SIGTERM)
                stop_at = None
    out, err = p.communicate(timeout=PATIENCE * 5)
    assert "\r" not in err, err  # no bar where there is no terminal
    return p.returncode, lines, out


@case("a run to its model, told in JSON lines")
def _(ctx):
    output = ctx.path("tuned.onnx")
    code, lines, out = train(command(ctx, small_model(ctx), "whole", "--force",
                                     "--learning-rate", "0.01", "--output", output))
    assert code == 0 and out == output + "\n", (code, lines[-1], out)
    phases = [e["text"] for e in lines if e["event"] == "phase"]
    assert phases == ["check", "before", "train", "evaluate", "train", "after", "write"], phases
    steps = [e for e in lines if e["event"] == "step"]
    assert [e["step"] for e in steps if e["batch"] == e["batches"]] == [2, 4], steps
    for e in steps:
        assert set(e) == {"event", "step", "epoch", "batch", "batches", "loss", "rate",
                          "triplets", "faces_per_s", "left_s"}, e
        assert e["rate"] == 0.01 and e["batches"] == 2 and e["triplets"] > 0, e
    for e in lines:
        if e["event"] == "evaluation":
            assert e["set"] == "held" and set(e["val"]) == {"0.1", "0.01", "0.001"}, e
            assert e["accuracy_std"] is None and 0 <= e["accuracy"] <= 1, e
    assert [e["when"] for e in lines if e["event"] == "evaluation"] == \
        ["before", "during", "after"]
    saved = [e for e in lines if e["event"] == "checkpoint"]
    assert [e["step"] for e in saved] == [2, 4] and all(os.path.exists(e["path"]) for e in saved)
    assert lines[-1]["event"] == "result" and lines[-1]["outcome"] == "published", lines[-1]
    assert lines[-1]["model"] == output
    info = json.loads(run(CTL, "model", "info", output, "--json").stdout)
    parent = json.loads(run(CTL, "model", "info", small_model(ctx), "--json").stdout)
    assert info["contract"]["parent"] == parent["id"], info["contract"]


@case("on a card that is played the same model, and auto says why not")
def _(ctx):
    models = []
    for device in ("cpu", "cuda"):
        output = ctx.path("on-%s.onnx" % device)
        code, lines, _ = train(command(
            ctx, small_model(ctx), "on-" + device, "--force", "--learning-rate", "0.01",
            "--precision", "f32", "--device", device, "--device-plugin",
            os.path.join(BUILD, "tests", "fake_gpu.so"), "--output", output))
        assert code == 0, lines[-1]
        told = [e["text"] for e in lines if e["event"] == "device"]
        assert len(told) == 1 and told[0].startswith(device + ", "), told
        models.append(json.loads(run(CTL, "model", "info", output, "--json").stdout)["id"])
    assert models[0] == models[1], models
    dry = command(ctx, small_model(ctx), "none", "--dry-run", "--device-plugin",
                  ctx.path("none.so"))
    code, lines, _ = train(dry)
    told = [e["text"] for e in lines if e["event"] == "device"]
    assert code == 0 and told[0].startswith("cpu, ") and "no card: plugin" in told[0], told
    code, lines, _ = train(dry + ["--device", "cuda"])
    assert code == 2 and "No such file" in lines[-1]["text"], (code, lines[-1])


@case("SIGTERM in every phase is exit 3, and it goes on from there")
def _(ctx):
    want = ctx.path("whole.onnx")
    arguments = ("--force", "--learning-rate", "0.01", "--random-flip", "--output")
    code, lines, _ = train(command(ctx, small_model(ctx), "s", *arguments, want))
    assert code == 0, lines[-1]
    for event in ("evaluation", "step", "checkpoint"):
        output = ctx.path("part-%s.onnx" % event)
        argv = command(ctx, small_model(ctx), "s", *arguments, output)
        code, lines, out = train(argv, stop_at=event)
        assert code == 3 and out == "" and not os.path.exists(output), (event, code, lines[-1])
        assert lines[-1]["outcome"] == "stopped" and lines[-1]["model"] is None, lines[-1]
        saved = [e["path"] for e in lines if e["event"] == "checkpoint"][-1]
        code, lines, _ = train(argv + ["--resume", os.path.dirname(saved)])
        assert code == 0, (event, lines[-1])
        assert read(output) == read(want), event


@case("a dry run ends well and leaves nothing")
def _(ctx):
    code, lines, out = train(command(ctx, small_model(ctx), "dry", "--dry-run"))
    assert code == 0 and out == "", lines[-1]
    assert lines[-1]["outcome"] == "checked" and lines[-1]["model"] is None, lines[-1]
    assert not os.path.exists(ctx.path("dry"))


@case("a model that became worse is exit 1, and kept aside")
def _(ctx):
    model = os.path.join(cases_faces.models(ctx), "embedder.onnx")
    output = ctx.path("worse.onnx")
    code, lines, out = train(command(ctx, model, "worse", "--learning-rate", "5",
                                     "--moving-average-decay", "0", "--alpha", "2",
                                     "--output", output))
    assert code == 1 and lines[-1]["outcome"] == "refused", (code, lines[-1])
    assert out.strip() == lines[-1]["model"] and out.endswith("/refused.onnx\n"), out
    assert os.path.exists(out.strip()) and not os.path.exists(output)
    assert "before" in lines[-1]["text"] and "after" in lines[-1]["text"], lines[-1]
