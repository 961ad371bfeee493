#!/usr/bin/env python3
"""A detector beside the reference one, as CSV: name,variant,n,unit,median,p90.

usage: bench/figures_detector.py [DETECTORS [REFERENCE]] [--photos N]

DETECTORS and REFERENCE are folders of detector_{p,r,o}net.onnx: models, and
the reference weights of the test data, imported. LFW's photos (N of them; all)
are looked at with the daemon's smallest face, 36 pixels, and the test data's
whole photos with 20, for which the expected faces are stored.

*_found    part of the reference's faces found, IoU 0.5 or more: of LFW the most
           central one of each photo, of the whole photos all those that are
           expected with a score of 0.95 or more
*_found_95 the same, with a score of 0.95 or more
*_only     faces found where the reference has none; _95: with such a score
*_iou      IoU of those pairs; its last column is the worst tenth's
*_points   distance of a point from the reference's, % of the distance between
           the eyes: mean of a face's five
*_chip     how far apart the two put a point of the face in the aligned 112x112
           crop, in its pixels
ms         CPU time of a photo, one thread, decoding left out

Neither set may be trained on. Needs FACENETD_DATA or ../shared/data; without,
a printed skip.
"""

import argparse
import glob
import json
import math
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.environ.get("FACENETD_DATA") or os.path.join(ROOT, "../shared/data")
CTL = os.path.join(ROOT, "build/facenetctl")
FACES = os.path.join(ROOT, "build", os.environ.get("V", "release"),
                     "bench/bench_faces")
PARTS = ["pnet", "rnet", "onet"]
SURE = 0.95


def row(name, variant, n, unit, value, p90=""):
    spread = p90 if p90 == "" else "%.4g" % p90
    print("%s,%s,%d,%s,%.4g,%s" % (name, variant, n, unit, value, spread),
          flush=True)


def at(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))]


def look(folder, paths, least):
    done = subprocess.run([FACES, folder, str(least)], input="\n".join(paths),
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit("figures_detector: " + done.stderr.strip())
    return [json.loads(line) for line in done.stdout.splitlines()]


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    return both / ((a[2] - a[0]) * (a[3] - a[1]) +
                   (b[2] - b[0]) * (b[3] - b[1]) - both)


def best(face, faces):
    return max(faces, key=lambda f: iou(f["box"], face["box"]), default=None)


def central(photo):
    def off(face):
        b = face["box"]
        return math.hypot((b[0] + b[2] - photo["w"]) / 2,
                          (b[1] + b[3] - photo["h"]) / 2)
    return min(photo["faces"], key=off, default=None)


def off_points(face, wanted):
    """Mean distance of the points in distances between the eyes."""
    eyes = math.dist(wanted["points"][0], wanted["points"][1])
    return sum(math.dist(p, q) for p, q in
               zip(face["points"], wanted["points"])) / 5 / max(eyes, 1e-6)


TEMPLATE = [38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j,
            41.5493 + 92.3655j, 70.7299 + 92.2041j]


def alignment(face):
    """The least-squares similarity to the 112x112 template, z -> a z + b."""
    z = [complex(*p) for p in face["points"]]
    mean, to = sum(z) / 5, sum(TEMPLATE) / 5
    norm = sum(abs(p - mean) ** 2 for p in z)
    a = sum((q - to) * (p - mean).conjugate()
            for p, q in zip(z, TEMPLATE)) / norm
    return a, to - a * mean


def off_chip(face, wanted):
    """How far the two alignments put the same point of the photo apart: mean
    over the template's points, pixels of the crop."""
    a, b = alignment(face)
    c, d = alignment(wanted)
    return sum(abs(a * ((q - d) / c) + b - q) for q in TEMPLATE) / 5


def compare(name, variant, pairs, extra):
    """pairs: wanted face, found face or None."""
    found = [(w, f) for w, f in pairs if f and iou(w["box"], f["box"]) >= 0.5]
    sure = [f for _, f in found if f["score"] >= SURE]
    n = len(pairs)
    row(name + "_found", variant, n, "%", 100 * len(found) / max(n, 1))
    row(name + "_found_95", variant, n, "%", 100 * len(sure) / max(n, 1))
    row(name + "_only", variant, n, "faces", extra[0])
    row(name + "_only_95", variant, n, "faces", extra[1])
    if not found:
        return
    values = [iou(w["box"], f["box"]) for w, f in found]
    row(name + "_iou", variant, len(found), "", at(values, .5), at(values, .1))
    values = [100 * off_points(f, w) for w, f in found]
    row(name + "_points", variant, len(found), "% of eyes", at(values, .5),
        at(values, .9))
    values = [off_chip(f, w) for w, f in found]
    row(name + "_chip", variant, len(found), "pixels", at(values, .5),
        at(values, .9))


def count_only(found, wanted):
    """Faces that overlap no wanted one: all, and those of SURE or more."""
    n = [0, 0]
    for have, want in zip(found, wanted):
        for f in have["faces"]:
            w = best(f, want["faces"])
            if not w or iou(w["box"], f["box"]) < 0.3:
                n[0] += 1
                n[1] += f["score"] >= SURE
    return n


def times(variant, photos):
    ms = [p["ms"] for p in photos]
    row("ms", variant, len(ms), "ms", at(ms, .5), at(ms, .9))


def on_lfw(detector, reference, most):
    paths = sorted(glob.glob(os.path.join(DATA, "faces/lfw/*/*.jpg")))
    if most and most < len(paths):
        paths = [paths[i * len(paths) // most] for i in range(most)]
    theirs, ours = look(reference, paths, 36), look(detector, paths, 36)
    pairs = []
    for have, want in zip(ours, theirs):
        face = central(want)
        if face:
            pairs.append((face, best(face, have["faces"])))
    compare("lfw", "250x250", pairs, count_only(ours, theirs))
    times("lfw reference", theirs)
    times("lfw", ours)


def expected():
    with open(os.path.join(DATA, "golden/mtcnn.json"), encoding="utf-8") as f:
        stored = json.load(f)["photos"]
    paths, wanted = [], []
    for name in sorted(stored):
        paths.append(os.path.join(DATA, "photos", name))
        wanted.append({"faces": [
            {"box": f["box"], "score": f["prob"], "points": f["landmarks"]}
            for f in stored[name]]})
    return paths, wanted


def on_photos(detector, reference):
    paths, wanted = expected()
    for variant, folder in (("reference", reference), ("", detector)):
        found = look(folder, paths, 20)
        pairs = [(w, best(w, have["faces"]))
                 for have, want in zip(found, wanted) for w in want["faces"]
                 if w["score"] >= SURE]
        compare("photos", variant, pairs, count_only(found, wanted))
        times("photos " + variant if variant else "photos", found)


def describe(folder, variant):
    total = 0
    for part in PARTS:
        path = os.path.join(folder, "detector_%s.onnx" % part)
        total += os.path.getsize(path)
        done = subprocess.run([CTL, "model", "info", "--json", path],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith("{"):
            info = json.loads(done.stdout)
            for key in ("macs", "parameters"):
                if key in info:
                    row("detector_" + key, variant + part, 1, key, info[key])
    row("detector_bytes", variant + "all", 3, "MB", total / 1e6)


def import_reference(folder):
    for part in PARTS:
        subprocess.run(
            [CTL, "model", "import",
             os.path.join(DATA, "weights/mtcnn_%s.onnx" % part), "--kind",
             "mtcnn-" + part, "--scale", "fixed:127.5,128", "-o",
             os.path.join(folder, "detector_%s.onnx" % part)],
            check=True, stdout=subprocess.DEVNULL)
    return folder


def main():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("detectors", nargs="?",
                   default=os.path.join(ROOT, "models"))
    p.add_argument("reference", nargs="?")
    p.add_argument("--photos", type=int, default=0)
    a = p.parse_args()
    if not os.path.isdir(os.path.join(DATA, "faces/lfw")):
        print("skip: no photos in " + DATA, file=sys.stderr)
        return
    if not os.path.exists(os.path.join(a.detectors, "detector_onet.onnx")):
        print("skip: no detector in " + a.detectors, file=sys.stderr)
        return
    print("name,variant,n,unit,median,p90")
    with tempfile.TemporaryDirectory() as scratch:
        reference = a.reference or import_reference(scratch)
        describe(reference, "reference ")
        describe(a.detectors, "")
        on_photos(a.detectors, reference)
        on_lfw(a.detectors, reference, a.photos)


if __name__ == "__main__":
    main()
