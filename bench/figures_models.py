#!/usr/bin/env python3
"""What the models of models/ reach, beside the test data's reference weights,
as CSV: name,variant,n,unit,median,p90.

usage: bench/figures_models.py [size|time|lfw|others]... [--models DIR]

size    bytes, parameters and multiply-accumulates of the embedder
time    ms per face on one thread, f32, a batch of 1 and of 16: ours and the
        teacher in turn
lfw     its 6,000 pairs, raw photos through the served path: our embedder with
        our detector, with the reference detector; the teacher with either
others  VAL by all pairs of bollywood-64, 64x64 crops (trained on, but not on
        who is who)

p90 of LFW's rows is the standard deviation over folds. The reference weights
are those of FACENETD_DATA or ../shared/data; without, a printed skip.
figures_detector.py has the detector's own figures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.environ.get("FACENETD_DATA") or os.path.join(ROOT, "../shared/data")
CTL = os.path.join(ROOT, "build/facenetctl")
ENGINE = os.path.join(ROOT, "build", os.environ.get("V", "release"),
                      "bench/bench_engine")
PARTS = ["size", "time", "lfw", "others"]
TEACHER_SCALE = "fixed:123.675,116.28,103.53,58.395,57.12,57.375"


def row(name, variant, n, unit, value, spread=""):
    print("%s,%s,%d,%s,%.4g,%s" % (name, variant, n, unit, value, spread),
          flush=True)


def ctl(*args):
    return subprocess.run([CTL, *args], capture_output=True, text=True,
                          check=True).stdout


def reference(folder):
    """The teacher and the reference detector, with contracts, in folder."""
    weights = os.path.join(DATA, "weights/")
    ctl("model", "import", weights + "mobilefacenet_foamliu_112.onnx",
        "--crop", "arcface-112", "--scale", TEACHER_SCALE,
        "-o", folder + "/embedder.onnx")
    for n in "pro":
        ctl("model", "import", weights + "mtcnn_%snet.onnx" % n,
            "--kind", "mtcnn-%snet" % n, "--scale", "fixed:127.5,128",
            "-o", folder + "/detector_%snet.onnx" % n)


def size(ours, theirs):
    for variant, folder in (("ours", ours), ("teacher", theirs)):
        path = folder + "/embedder.onnx"
        row("embedder_bytes", variant, 1, "bytes", os.path.getsize(path))
        for line in ctl("model", "info", path).splitlines():
            word = line.split()
            if word[:1] == ["parameters"]:
                row("embedder_parameters", variant, 1, "numbers", int(word[1]))
            elif word[:1] == ["MACs"]:
                row("embedder_macs", variant, 1, "MACs", int(word[1]))


def time(ours, theirs):
    for batch in (1, 16):
        times = {ours: [], theirs: []}
        for _ in range(5):
            for folder, seen in times.items():
                out = subprocess.run(
                    [ENGINE, folder + "/embedder.onnx", "1", str(batch), "f32",
                     "1"], capture_output=True, text=True, check=True).stdout
                seen.append(float(out.split()[0]) / batch)
        for variant, folder in (("ours", ours), ("teacher", theirs)):
            row("embed_ms_per_face", variant + ", batch %d" % batch, 5, "ms",
                statistics.median(times[folder]), "%.4g" % max(times[folder]))
        row("embed_time_ratio", "teacher by ours, batch %d" % batch, 5, "x",
            statistics.median(times[theirs]) / statistics.median(times[ours]))


def lfw(ours, theirs):
    for name, embedder, detector in (
            ("ours, our detector", ours, ours),
            ("ours, reference detector", ours, theirs),
            ("teacher, our detector", theirs, ours),
            ("teacher, reference detector", theirs, theirs)):
        e = json.loads(ctl(
            "evaluate", "--model", embedder + "/embedder.onnx", "--pairs",
            DATA + "/lfw/pairs.txt", "--photos", DATA + "/faces/lfw",
            "--detectors", detector, "--json", "--max-skipped", "0.05"))
        name = name.replace(",", ";")
        for what, key in (("accuracy", "accuracy"), ("val_far_1e-3", "val")):
            row("lfw_" + what, name, e["pairs"], "%", 100 * e[key]["mean"],
                "%.2f" % (100 * e[key]["std"]))
        row("lfw_eer", name, e["pairs"], "%", 100 * e["eer"])
        row("lfw_threshold", name, e["pairs"], "distance", e["threshold"])
        row("lfw_skipped", name, e["pairs"], "pairs", e["skipped"])


def others(ours, theirs):
    for variant, folder in (("ours", ours), ("teacher", theirs)):
        c = json.loads(ctl(
            "calibrate", "--model", folder + "/embedder.onnx", "--photos",
            DATA + "/faces/bollywood-64", "--detectors", ours, "--cropped",
            "no", "--json"))
        for t in c["thresholds"]:
            row("val_far_%g" % t["far"], "bollywood-64; " + variant,
                c["impostor"], "%", 100 * (1 - t["frr"]))


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("parts", nargs="*", default=[])
    p.add_argument("--models", default=os.path.join(ROOT, "models"))
    a = p.parse_args()
    for part in a.parts:
        if part not in PARTS:
            p.error("no part is named %s" % part)
    if not os.path.isdir(DATA + "/weights"):
        print("skip: no reference weights", file=sys.stderr)
        return
    print("name,variant,n,unit,median,p90")
    with tempfile.TemporaryDirectory() as theirs:
        reference(theirs)
        for part in a.parts or PARTS:
            globals()[part](a.models, theirs)


if __name__ == "__main__":
    main()
