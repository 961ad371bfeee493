#!/usr/bin/env python3
"""What a card's arithmetic changes, as CSV: name,variant,n,unit,median,p90.

usage: bench/accuracy_card.py [--pairs N] [--photos N] [--precision P...]

LFW's pairs by facenetctl evaluate, with the embedder on the processor in f32 and
on the card of FACENETD_PLUGIN in each precision (for rates the last column is
the standard deviation over folds); then the cosines of the embeddings of LFW's
photos, faces found on the card, to those of the processor alone: the median and
the least. --pairs, --photos: no more than so many, to try this file. Models: those
of models/. Needs FACENETD_DATA or ../shared/data; without, a printed skip.
"""

import argparse
import json
import os
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
sys.path.insert(0, os.path.join(ROOT, "tests", "http"))

from cases_demo import MODELS  # noqa: E402
from cases_device import cosine  # noqa: E402
from client import CARD, CTL, DATA, Daemon, read, run  # noqa: E402
from serve import Place, row  # noqa: E402

MODEL = os.path.join(MODELS, "embedder.onnx")
PHOTOS = os.path.join(DATA, "faces", "lfw")


def name_of(who, number):
    return "%s/%s_%04d.jpg" % (who, who, int(number))


def pairs(place, most):
    """LFW's list as lines "path path same", and the photos in them."""
    out, photos = place.path("pairs.txt"), {}
    with open(os.path.join(DATA, "lfw", "pairs.txt"), encoding="utf-8") as f:
        lines = [line.split() for line in f][1:]
    if most:
        lines = lines[:most // 2] + lines[300:300 + most // 2]
    with open(out, "w", encoding="utf-8") as f:
        for cells in lines:
            if len(cells) == 3:
                one, two = name_of(cells[0], cells[1]), name_of(cells[0], cells[2])
            else:
                one, two = name_of(cells[0], cells[1]), name_of(cells[2], cells[3])
            f.write("%s %s %d\n" % (one, two, len(cells) == 3))
            photos[one] = photos[two] = True
    return out, list(photos)


def accuracy(listed, variant, *args):
    p = run(CTL, "evaluate", "--model", MODEL, "--pairs", listed, "--photos", PHOTOS,
            "--max-skipped", "0.05", "--json", *args, ok=False)
    if p.returncode:
        print("skip: %s: %s" % (variant, p.stderr.strip()[-200:]), file=sys.stderr)
        return
    e = json.loads(p.stdout)
    n = e["pairs"]
    row("lfw_accuracy", variant, n, "%", "%.3f" % (100 * e["accuracy"]["mean"]),
        "%.3f" % (100 * e["accuracy"]["std"]))
    row("lfw_val_far_1e-3", variant, n, "%", "%.3f" % (100 * e["val"]["mean"]),
        "%.3f" % (100 * e["val"]["std"]))
    row("lfw_threshold", variant, n, "distance", "%.4f" % e["threshold"])


def embeddings(photos, *args):
    with Daemon(MODELS, "--precision", *args) as d:
        found = {}
        for path in photos:
            a = d.post("/embed", read(os.path.join(PHOTOS, path)))
            if a.status == 200:
                found[path] = a.json["faces"][0]["embedding"]
        return found, d.get("/info").json["device"]["precision"]


def cosines(photos, precisions):
    want, _ = embeddings(photos, "f32", "--device", "cpu")
    for precision in precisions:
        got, used = embeddings(photos, precision)
        if used != precision:
            print("skip: cosines in %s: the card's is %s" % (precision, used), file=sys.stderr)
            continue
        both = sorted(cosine(got[p], want[p]) for p in got if p in want)
        if both:
            row("embedding_cosine", "%s median and least" % used, len(both), "cosine",
                "%.6f" % both[len(both) // 2], "%.6f" % both[0])
        row("embedding_missing", used, len(photos), "photos", len(set(want) ^ set(got)))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--pairs", type=int, default=0)
    p.add_argument("--photos", type=int, default=300)
    p.add_argument("--precision", nargs="+", default=["f16", "bf16", "tf32", "f32"])
    arg = p.parse_args()
    if not os.path.isdir(PHOTOS) or not CARD:
        print("skip: %s" % ("no FACENETD_PLUGIN" if not CARD else "no photos in " + PHOTOS),
              file=sys.stderr)
        return
    place = Place()
    try:
        listed, photos = pairs(place, arg.pairs)
        accuracy(listed, "cpu f32", "--precision", "f32")
        for precision in arg.precision:
            accuracy(listed, "cuda " + precision, "--device", "cuda", "--device-plugin", CARD,
                     "--precision", precision)
        step = max(1, len(photos) // arg.photos)
        cosines(photos[::step][:arg.photos], arg.precision)
    finally:
        shutil.rmtree(place.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
