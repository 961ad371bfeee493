#!/usr/bin/env python3
"""The daemon on a card under load, as CSV: name,variant,n,unit,median,p90.

usage: bench/serve_card.py [--arch NAME...] [--seconds S] [--p99 MS]
                           [--connections N...] [--photos KIND...]
                           [--precision P] [--offline RATE]

/embed of one face a photo, at growing numbers of connections that each wait for
their answer, until the p99 is over its bound: the highest rate within it, as a
share of the rate that tests/gpu/bench_card gives for the same network alone,
and of what the daemon's time goes into: its processor time, and each stage's
from /metrics. The photos: "aligned", the network's crop already, in which nothing
is looked for; "crop", a face of 120x120 pixels; "portrait", 300x360; "large",
1024x768; all JPEGs. The load is made on the same machine. The card is that of FACENETD_PLUGIN; without, the processor serves.
Detectors and pictures are those of models/, the embedder has random weights.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
sys.path.insert(0, os.path.join(ROOT, "tests", "http"))

from cases_demo import MODELS, path as demo  # noqa: E402
from client import BUILD, CARD, CTL, PHOTO, Daemon, expect, read, run  # noqa: E402
from serve import Place, load, row  # noqa: E402

CARD_BENCH = os.path.join(BUILD, "tests", "gpu", "bench_card")
STAGES = ("decode", "detect", "align", "queue_wait", "embed", "request")
FAILOVERS = ("facenetd_device_failovers_total", "facenetd_detection_failovers_total")
OFFLINE_BATCH = 128
KINDS = ("aligned", "crop", "portrait", "large")


def models(place, arch):
    where = place.path(arch)
    os.mkdir(where)
    for part in ("pnet", "rnet", "onet"):
        shutil.copy(os.path.join(MODELS, "detector_%s.onnx" % part), where)
    run(CTL, "model", "new", "--arch", arch, "--normalised", "--seed", "1",
        "-o", os.path.join(where, "embedder.onnx"))
    return where


def way(kind):
    return "/embed?faces=" + ("aligned" if kind == "aligned" else "all")


def pictures(place, d, kinds):
    """A file of each kind, in which one face is found."""
    model = d.get("/info").json["model"]
    sides = {"aligned": (model["width"], model["height"]), "crop": (120, 120),
             "large": (1024, 768)}
    source = demo("ada-1")
    face = expect(d.post("/detect", read(source)), 200).json["faces"][0]["box"]
    made = {"portrait": source}
    for kind in kinds:
        out = place.path(kind + ".jpg")
        whole = source
        if kind in ("aligned", "crop"):
            side = 1.4 * max(face["x1"] - face["x0"], face["y1"] - face["y0"])
            corner = [(face[a + "0"] + face[a + "1"] - side) / 2 for a in "xy"]
            whole = out + ".cut"
            run(PHOTO, "cut", source, *("%d" % v for v in (*corner, side, side)), whole)
        if kind in sides:
            run(PHOTO, "size", whole, *map(str, sides[kind]), out)
            made[kind] = out
    for kind in kinds:
        n = len(expect(d.post(way(kind), read(made[kind])), 200).json["faces"])
        if n != 1:
            raise SystemExit("bench: %d faces in the picture '%s'" % (n, kind))
    return made


def counters(d):
    """Sums and counts of the stages' times, and the daemon's processor time."""
    text = d.get("/metrics").body.decode()
    found = {}
    for name in STAGES:
        for kind in ("sum", "count"):
            values = re.findall(r"^facenetd_%s_seconds_%s(?:\{[^}]*\})? (\S+)$" % (name, kind),
                                text, re.M)
            found[name, kind] = sum(map(float, values))
    with open("/proc/%d/stat" % d.process.pid, encoding="ascii") as f:
        cells = f.read().rsplit(")", 1)[1].split()
    found["cpu"] = (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", encoding="ascii") as f:
        cells = [int(c) for c in f.readline().split()[1:9]]
    found["all"], found["idle"] = sum(cells), cells[3] + cells[4]
    for name in FAILOVERS:
        found[name] = d.metric(name) or 0
    return found


def offline(arch, precision):
    """Faces a second of the network alone, in runs of OFFLINE_BATCH by two."""
    if not CARD or not os.path.exists(CARD_BENCH):
        return 0
    p = subprocess.run([CARD_BENCH, arch, str(OFFLINE_BATCH)], capture_output=True, text=True,
                       env=dict(os.environ, PRECISION=precision))
    rates = re.findall(r"^card_rate,.*,faces/s,(\d+),", p.stdout, re.M)
    if not rates:
        print("bench: bench_card: %s" % p.stderr.strip(), file=sys.stderr)
    return max(map(float, rates), default=0)


def limits(label, n, took, before, after):
    """What the daemon did for each of n answers."""
    row("serve_cpu", label, n, "cores", "%.2f" % ((after["cpu"] - before["cpu"]) / took))
    row("serve_cpu_each", label, n, "ms", "%.3f" % ((after["cpu"] - before["cpu"]) / n * 1e3))
    spent = after["all"] - before["all"]
    if spent:  # of all processors of the machine, the load's makers among them
        row("serve_machine_busy", label, n, "%",
            "%.0f" % (100 - 100 * (after["idle"] - before["idle"]) / spent))
    for name in STAGES:
        total = after[name, "sum"] - before[name, "sum"]
        count = after[name, "count"] - before[name, "count"]
        if count:
            row("serve_stage", "%s %s" % (label, name), int(count), "ms",
                "%.3f" % (total / count * 1e3))
    faces = after["queue_wait", "count"] - before["queue_wait", "count"]
    batches = after["embed", "count"] - before["embed", "count"]
    if batches:
        row("serve_batch", label, int(batches), "faces", "%.1f" % (faces / batches))
    for name in FAILOVERS:
        if after[name] > before[name]:
            row("serve_failovers", label, int(after[name] - before[name]), "batches", name)


def sweep(d, label, path, photo, arg, alone):
    best = None
    load(d, path, min(4, arg.connections[-1]), min(1, arg.seconds), photo)
    for connections in arg.connections:
        before = counters(d)
        n, took, median, p90, p99, refused = load(d, path, connections, arg.seconds, photo)
        after = counters(d)
        name = "%s c%d" % (label, connections)
        row("serve_rate", name, n, "1/s", "%.1f" % (n / took))
        row("serve_latency", name, n, "ms", "%.2f" % median, "%.2f" % p90)
        row("serve_latency_p99", name, n, "ms", "%.2f" % p99)
        if refused:
            row("serve_refused", name, refused, "requests", refused)
        if p99 > arg.p99:
            if best is None:
                limits(name, n, took, before, after)
            break
        if best is None or n / took > best[0]:
            best = (n / took, name, n, took, before, after)
    if best is None:
        print("bench: %s: p99 is over %g ms even with %d connections" % (
            label, arg.p99, arg.connections[0]), file=sys.stderr)
        return
    row("serve_rate_within_p99", label, best[2], "1/s", "%.1f" % best[0])
    if alone:
        row("serve_share_of_offline", label, best[2], "ratio", "%.3f" % (best[0] / alone))
    limits(*best[1:])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--arch", nargs="+", default=["inception_resnet_v1", "mobilefacenet_slim"])
    p.add_argument("--seconds", type=float, default=3)
    p.add_argument("--p99", type=float, default=15)
    p.add_argument("--connections", type=int, nargs="+",
                   default=[1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256])
    p.add_argument("--photos", nargs="+", default=list(KINDS), choices=KINDS)
    p.add_argument("--precision", default="auto")
    p.add_argument("--offline", type=float, help="faces a second, instead of bench_card's")
    arg = p.parse_args()
    place = Place()
    try:
        for arch in arg.arch:
            with Daemon(models(place, arch), "--precision", arg.precision) as d:
                device = d.get("/info").json["device"]
                made = pictures(place, d, arg.photos)
                label = "%s %s" % (arch, device["precision"])
                alone = arg.offline
                if alone is None and device["backend"] == "cuda":
                    alone = offline(arch, device["precision"])
                if CARD and device["backend"] != "cuda":
                    print("bench: %s is not on the card: %s" % (arch, device), file=sys.stderr)
                if alone:
                    row("serve_offline", label, OFFLINE_BATCH, "faces/s", "%.0f" % alone)
                for kind in arg.photos:
                    sweep(d, "%s %s" % (label, kind), way(kind), made[kind], arg, alone)
    finally:
        shutil.rmtree(place.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
