#!/usr/bin/env python3
"""Training against PyTorch on the CPU, in one run, or on a card.
usage: train.py BENCH_TRAIN [--steps N] [--rounds N] [--batch N]
                [--arch NAME ...] [--threads N ...] [--device cpu|cuda]
One step is forward, triplet loss, backward and ADAGRAD, in float32, without
the loader. Rounds alternate between facenetd and PyTorch in its two memory
orders; the better of these is the anchor; the median over rounds of the round
medians counts. Prints CSV: name,variant,n,unit,median,p90 in faces a second,
the ratio facenetd / PyTorch (above 1: facenetd is quicker) of time and of
processor time, and the selection of triplets of 1,800 photos against a step.
PyTorch is put into build/venv-torch from PyPI when that can be reached;
without, the anchor is skipped, and said so.
On a card (the plugin that FACENETD_PLUGIN names) a step is in bf16 and TF32,
the batch's copy to the card in it; ours also with kernels that were timed
against each other; PyTorch's, where it is installed with a card, in the same
arithmetic (bf16 by autocast), channels last, cuDNN's benchmark on."""
import argparse
import os
import statistics
import subprocess
import sys

VENV = "build/venv-torch"
ORDERS = ("contiguous", "channels_last")
here = os.path.dirname(os.path.abspath(__file__))


def own_libraries():
    """The environment without the libraries that were packed with our
    programs: PyTorch has its own."""
    return {name: value for name, value in os.environ.items()
            if name != "LD_LIBRARY_PATH" or not os.path.isdir("build/lib")}


def card_python():
    """This Python where its torch has a card, or None."""
    done = subprocess.run(
        [sys.executable, "-c",
         "import torch, sys; sys.exit(not torch.cuda.is_available())"],
        capture_output=True, env=own_libraries())
    return None if done.returncode else sys.executable


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
    ours = "python" not in os.path.basename(command[0])
    done = subprocess.run(command, capture_output=True, text=True,
                          env=None if ours else own_libraries())
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


def on_card(arg, arch, python):
    """Both engines; returns the median of ours in bf16, in ms."""
    rest = [arch, str(arg.batch), "1", str(arg.steps)]
    engines = {}
    for word in ("bf16", "tf32"):
        engines[f"facenetd cuda {word}"] = [
            arg.bench, "step", *rest, "cuda", word]
        engines[f"facenetd cuda {word} tuned"] = [
            arg.bench, "step", *rest, "cuda", word, "tune"]
        if python:
            engines[f"torch cuda {word}"] = [
                python, f"{here}/anchor_torch.py", *rest, "channels_last",
                "cuda", word]
    runs = {engine: [] for engine in engines}
    for _ in range(arg.rounds):
        for engine, command in engines.items():
            runs[engine].append(run(command))
    for engine, got in runs.items():
        print(f"train_{arch},{engine},{arg.batch},faces/s,"
              f"{arg.batch * 1e3 / median(got, 0):.1f},"
              f"{arg.batch * 1e3 / median(got, 1):.1f}", flush=True)
    for word in ("bf16", "tf32") if python else ():
        ratio = (median(runs[f"torch cuda {word}"], 0) /
                 median(runs[f"facenetd cuda {word}"], 0))
        print(f"train_{arch},torch/facenetd time cuda {word},{arg.batch},"
              f"ratio,{ratio:.2f},", flush=True)
    return median(runs["facenetd cuda bf16"], 0)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("bench")
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--batch", type=int, default=90)
    p.add_argument("--arch", nargs="+",
                   default=["inception_resnet_v1", "mobilefacenet"])
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arg = p.parse_args()
    card = arg.device == "cuda"
    python = card_python() if card else anchor_python()
    if not python:
        print("# skip: no PyTorch for the anchor", file=sys.stderr)
    print("name,variant,n,unit,median,p90")
    steps = {}
    for arch in arg.arch:
        if card:
            steps[arch, "cuda"] = on_card(arg, arch, python)
        for threads in arg.threads if not card else ():
            steps[arch, f"{threads}T"] = setting(arg, arch, threads, python)
    selection = run([arg.bench, "select", "5", arg.device])
    print(f"triplet_selection,1800 photos {arg.device},1800,ms,"
          f"{selection[0]:.1f},{selection[1]:.1f}")
    for (arch, threads), step in steps.items():
        print(f"triplet_selection,of a step of {arch} {threads},1800,ratio,"
              f"{selection[0] / step:.4f},")


main()
