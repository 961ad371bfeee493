#!/usr/bin/env python3
"""What training reaches, as CSV: name,variant,n,unit,median,p90.

usage: bench/figures_train.py [scratch|same|finetune|refused|distill]...
           [--minutes M] [--threads N] [--keep DIR]

scratch   a network of 59 M MACs from random weights, by triplets, on
          cfp-train and lfw-other-people
same      its first batches twice with one seed: every loss is the same
finetune  MobileFaceNet with ArcFace on half the people of bollywood-64, measured on
          the other half before and after, and on LFW
refused   the same with a rate that ruins it: the guard must refuse
distill   the network of 59 M MACs (a quarter of its teacher's) imitates that
          one, on the training folders alone

LFW is its 6,000 pairs, never trained on, raw photos through the served path.
scratch and distill take M minutes each (50), the others a few. Their curves
are printed as rows "curve": n is the step. Needs FACENETD_DATA or
../shared/data and build/reference (make reference); without, a printed
skip.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.environ.get("FACENETD_DATA") or os.path.join(ROOT, "../shared/data")
CTL = os.path.join(ROOT, "build/facenetctl")
MODELS = os.path.join(ROOT, "build/reference")
TEACHER = os.path.join(MODELS, "embedder.onnx")
PARTS = ["scratch", "same", "finetune", "refused", "distill"]


def row(name, variant, n, unit, value, spread=""):
    print("%s,%s,%d,%s,%.4g,%s" % (name, variant, n, unit, value, spread),
          flush=True)


def faces(*names):
    return ":".join(os.path.join(DATA, "faces", name) for name in names)


def train(keep, part, arguments):
    """Runs facenetctl train; its events and its exit status."""
    base = os.path.join(keep, part)
    shutil.rmtree(base, ignore_errors=True)
    os.makedirs(base)
    out = os.path.join(base, "model.onnx")
    read, write = os.pipe()
    command = [CTL, "train", "--device=cpu",
               "--progress-fd=%d" % write, "--output=" + out,
               "--logs-base-dir=%s/logs" % base,
               "--models-base-dir=%s/models" % base,
               "--detectors=" + MODELS]
    command += ["--%s=%s" % (k, v) for k, v in arguments.items()]
    print("# " + " ".join(command), file=sys.stderr, flush=True)
    with open(base + "/log.txt", "w", encoding="utf-8") as log:
        child = subprocess.Popen(command, pass_fds=[write], stdout=log,
                                 stderr=log, stdin=subprocess.DEVNULL)
    os.close(write)
    events = []
    with os.fdopen(read, encoding="utf-8") as lines:
        for line in lines:
            events.append(json.loads(line))
    return out, events, child.wait()


def evaluate(part, model):
    done = subprocess.run(
        [CTL, "evaluate", "--model", model, "--pairs", DATA + "/lfw/pairs.txt",
         "--photos", DATA + "/faces/lfw", "--detectors", MODELS, "--json"],
        capture_output=True, text=True, check=True)
    e = json.loads(done.stdout)
    row(part + "_lfw_accuracy", "6000 pairs", e["pairs"], "%",
        100 * e["accuracy"]["mean"], "%.2f" % (100 * e["accuracy"]["std"]))
    row(part + "_lfw_val_far_1e-3", "6000 pairs", e["pairs"], "%",
        100 * e["val"]["mean"], "%.2f" % (100 * e["val"]["std"]))
    return e["accuracy"]["mean"]


def curve(part, events):
    for e in events:
        if e["event"] == "evaluation" and e["set"] == "held":
            for far in ("0.1", "0.01", "0.001"):
                if e["val"].get(far) is not None:
                    row("%s_held_val_far_%s" % (part, far), e["when"],
                        e["step"], "%", 100 * e["val"][far])
        elif e["event"] == "evaluation":
            row(part + "_lfw", e["when"], e["step"], "%", 100 * e["accuracy"])
    steps = [e for e in events if e["event"] == "step"]
    for e in steps[::max(1, len(steps) // 20)]:
        row(part + "_loss", "curve", e["step"], "squared L2", e["loss"])
    if steps:
        row(part + "_steps", "curve", steps[-1]["step"], "batches",
            steps[-1]["step"])


def finished(part, events, code, want):
    result = [e for e in events if e["event"] == "result"]
    print("# %s: exit %d, %s" % (part, code,
                                 result[-1]["text"] if result else "no result"),
          file=sys.stderr, flush=True)
    if code != want:
        sys.exit("%s ended with %d, not %d" % (part, code, want))


def fresh(a, minutes):
    return {"arch": "mobilefacenet_small", "crop": "arcface-112",
            "scale": "fixed:127.5,128", "batch-size": 90, "epoch-size": 100,
            "threads": a.threads, "minutes": minutes,
            "optimizer": "ADAM", "adam-epsilon": "1e-8",
            "aligned": "no", "random-flip": "true"}


def scratch(a, keep):
    args = fresh(a, a.minutes)
    args.update({
        "arch": "nns2", "crop": "box-margin:44,182", "epoch-size": 400,
        "data-dir": faces("cfp-train", "lfw-other-people"), "holdout": 0.02,
        "selection": "facenet", "people-per-batch": 60,
        "images-per-person": 10, "learning-rate": 0.001,
        "augment": SCRATCH_AUGMENT, "evaluate-minutes": max(2, a.minutes / 6)})
    out, events, code = train(keep, "scratch", args)
    finished("scratch", events, code, 0)
    curve("scratch", events)
    evaluate("scratch", out)


def same(a, keep):
    losses = []
    for i in range(2):
        args = fresh(a, 0)
        args.update({
            "data-dir": faces("cfp-train"), "people-per-batch": 20,
            "images-per-person": 6, "learning-rate": 0.001, "epoch-size": 12,
            "max-nrof-epochs": 1, "augment": SCRATCH_AUGMENT})
        _, events, code = train(keep, "same%d" % i, args)
        finished("same", events, code, 0)
        losses.append([(e["step"], e["loss"]) for e in events
                       if e["event"] == "step"])
    shared = set(dict(losses[0])) & set(dict(losses[1]))
    equal = sum(dict(losses[0])[s] == dict(losses[1])[s] for s in shared)
    row("same_seed_equal_losses", "%d compared" % len(shared), len(shared),
        "losses", equal)
    if equal != len(shared) or not shared:
        sys.exit("the same seed gave other losses")


def finetune(a, keep, part="finetune", rate=None, want=0):
    args = dict(FINETUNE)
    args.update({"pretrained-model": TEACHER, "threads": a.threads,
                 "data-dir": faces("bollywood-64"), "holdout": 0.5})
    if rate:
        args.update({"learning-rate": rate, "max-nrof-epochs": 1,
                     "epoch-size": 20})
    out, events, code = train(keep, part, args)
    finished(part, events, code, want)
    curve(part, events)
    if want == 0:
        before = evaluate(part + "_before", TEACHER)
        after = evaluate(part + "_after", out)
        row(part + "_lfw_change", "after less before", 6000, "points",
            100 * (after - before))


def refused(a, keep):
    finetune(a, keep, "refused", 0.5, 1)


def distill(a, keep):
    args = fresh(a, a.minutes)
    args.update({
        "data-dir": faces("cfp-train", "lfw-other-people", "bollywood-64",
                          "celebs-7"),
        "distill": TEACHER, "holdout": 0.02, "learning-rate": 0.003,
        "learning-rate-decay-epochs": 3, "learning-rate-decay-factor": 0.5,
        "augment": DISTILL_AUGMENT, "evaluate-minutes": max(2, a.minutes / 6)})
    out, events, code = train(keep, "distill", args)
    finished("distill", events, code, 0)
    curve("distill", events)
    evaluate("distill", out)


DISTILL_AUGMENT = "jitter=0.02,light=0.2"
SCRATCH_AUGMENT = "jitter=0.03,light=0.2"
FINETUNE = {
    "aligned": "no", "optimizer": "MOM", "learning-rate": 0.002,
    "batch-size": 90, "people-per-batch": 15, "images-per-person": 12,
    "epoch-size": 60, "max-nrof-epochs": 3, "augment": "jitter=0.04,light=0.2",
}


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("parts", nargs="*", default=[])
    p.add_argument("--minutes", type=float, default=50)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--keep", default="")
    a = p.parse_args()
    for part in a.parts:
        if part not in PARTS:
            p.error("no part is named %s" % part)
    if not os.path.isdir(DATA + "/faces/cfp-train") or \
            not os.path.exists(TEACHER):
        print("skip: no photos or no model", file=sys.stderr)
        return
    print("name,variant,n,unit,median,p90")
    with tempfile.TemporaryDirectory() as scrap:
        for part in a.parts or PARTS:
            globals()[part](a, a.keep or scrap)


if __name__ == "__main__":
    main()
