#!/usr/bin/env python3
"""Training against PyTorch on the CPU, in one run.
usage: train.py BENCH_TRAIN [--steps N] [--rounds N] [--batch N]
                [--arch NAME ...] [--threads N ...]
One step is forward, triplet loss, backward and ADAGRAD, in float32, without
the loader. Rounds alternate between facenetd and PyTorch in its two memory
orders; the better of these is the anchor; the median over rounds of the round
medians counts. Prints CSV: name,variant,n,unit,median,p90 in faces a second,
the ratio facenetd / PyTorch (above 1: facenetd is quicker) of time and of
processor time, and the selection of triplets of 1,800 photos against a step.
PyTorch is put into build/venv-torch from PyPI when that can be reached;
without, the anchor is skipped, and said so."""
import argparse
import os
import statistics
import subprocess
import sys

VENV = "build/venv-torch"
ORDERS = ("contiguous", "channels_last")
here = os.path.dirname(os.path.abspath(__file__))


def anchor_python():
    """A Python that has torch, or None."""
    for python in (f"{VENV}/bin/python", sys.executable):
        if os.path.exists(python) and subprocess.run(
                [python, "-c", "import torch"],
                capture_output=True).returncode == 0:
            return python
    for step in ([sys.executable, "-m", "venv", VENV],
                 [f"{VENV}/bin/pip", "-q", "install", "--no-cache-dir",
                  "torch", "numpy"],
                 [f"{VENV}/bin/python", "-c", "import torch"]):
        if subprocess.run(step, capture_output=True).returncode:
            return None
    return f"{VENV}/bin/python"


def run(command):
    """What the command prints, as numbers."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return [float(word) for word in done.stdout.split()]


def median(runs, column):
    return statistics.median(r[column] for r in runs)


def setting(arg, arch, threads, python):
    """Both engines; returns the median of ours in ms."""
    rest = [arch, str(arg.batch), str(threads), str(arg.steps)]
    engines = {"facenetd": [arg.bench, "step", *rest]}
    if python:
        for order in ORDERS:
            engines[f"torch {order}"] = [python, f"{here}/anchor_torch.py",
                                         *rest, order]
    runs = {engine: [] for engine in engines}
    for _ in range(arg.rounds):
        for engine, command in engines.items():
            runs[engine].append(run(command))
    for engine, got in runs.items():
        if got[0][3] != runs["facenetd"][0][3]:
            sys.exit(f"{arch}: {engine} has {got[0][3]:.0f} weights, "
                     f"facenetd {runs['facenetd'][0][3]:.0f}")
        print(f"train_{arch},{engine} {threads}T,{arg.batch},faces/s,"
              f"{arg.batch * 1e3 / median(got, 0):.2f},"
              f"{arg.batch * 1e3 / median(got, 1):.2f}", flush=True)
    for column, what in ((0, "time"), (2, "cpu time")) if python else ():
        best = min(median(runs[f"torch {order}"], column) for order in ORDERS)
        print(f"train_{arch},torch/facenetd {what} {threads}T,{arg.batch},"
              f"ratio,{best / median(runs['facenetd'], column):.2f},",
              flush=True)
    return median(runs["facenetd"], 0)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bench")
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--batch", type=int, default=90)
    p.add_argument("--arch", nargs="+",
                   default=["inception_resnet_v1", "mobilefacenet"])
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arg = p.parse_args()
    python = anchor_python()
    if not python:
        print("# skip: no PyTorch for the anchor", file=sys.stderr)
    print("name,variant,n,unit,median,p90")
    steps = {}
    for arch in arg.arch:
        for threads in arg.threads:
            steps[arch, threads] = setting(arg, arch, threads, python)
    selection = run([arg.bench, "select", "5"])
    print(f"triplet_selection,1800 photos,1800,ms,{selection[0]:.1f},"
          f"{selection[1]:.1f}")
    for (arch, threads), step in steps.items():
        print(f"triplet_selection,of a step of {arch} {threads}T,1800,ratio,"
              f"{selection[0] / step:.4f},")


main()
