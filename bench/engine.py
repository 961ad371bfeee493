#!/usr/bin/env python3
"""The engine against ONNX Runtime, in one run.
usage: engine.py BENCH_ENGINE FACENETCTL [SECONDS]
Rounds alternate between the two engines; the median over rounds of the round
medians counts. Prints CSV: name,variant,n,unit,median,p90, and the ratio
ONNX Runtime / facenetd (above 1: facenetd is quicker). Without onnxruntime
(it is put into build/venv from PyPI when that can be reached) the anchor is
skipped, and said so."""
import os
import statistics
import subprocess
import sys

ROUNDS = 3
bench, ctl = sys.argv[1:3]
seconds = sys.argv[3] if len(sys.argv) > 3 else "1"
here = os.path.dirname(os.path.abspath(__file__))


def anchor_python():
    """A Python that has onnxruntime, or None."""
    for python in ("build/venv/bin/python", sys.executable):
        if subprocess.run([python, "-c", "import onnxruntime"],
                          capture_output=True).returncode == 0 \
                if os.path.exists(python) else False:
            return python
    steps = ([sys.executable, "-m", "venv", "build/venv"],
             ["build/venv/bin/pip", "-q", "install", "onnxruntime", "numpy"])
    for step in steps:
        if subprocess.run(step, capture_output=True).returncode:
            return None
    return "build/venv/bin/python"


def run(command):
    """(median, p90) in ms, or None with the reason printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    words = done.stdout.split()
    if done.returncode or not words:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    if words[0] == "skip":
        return done.stdout.strip()
    return float(words[0]), float(words[1])


def line(name, variant, batch, runs):
    print(f"{name},{variant},{batch},ms/face,"
          f"{statistics.median(r[0] for r in runs) / batch:.3f},"
          f"{statistics.median(r[1] for r in runs) / batch:.3f}", flush=True)


def setting(name, path, threads, batch, python):
    """All engines and precisions of one network, threads and batch."""
    engines = {"f32": [bench, path, str(threads), str(batch), "f32", seconds],
               "bf16": [bench, path, str(threads), str(batch), "bf16",
                        seconds]}
    if python:
        engines["ort"] = [python, f"{here}/anchor_ort.py", path,
                          str(threads), str(batch), seconds]
    runs, skipped = {e: [] for e in engines}, {}
    for _ in range(ROUNDS):
        for engine, command in engines.items():
            result = run(command)
            if isinstance(result, str):
                skipped[engine] = result
            else:
                runs[engine].append(result)
    for engine, why in skipped.items():
        print(f"# {name} {engine}: {why}")
    for engine, got in runs.items():
        if got:
            line(name, f"{engine} {threads}T", batch, got)
    if python:
        anchor = statistics.median(r[0] for r in runs["ort"])
        for engine in ("f32", "bf16"):
            if runs[engine]:
                ours = statistics.median(r[0] for r in runs[engine])
                print(f"{name},ort/{engine} {threads}T,{batch},ratio,"
                      f"{anchor / ours:.2f},", flush=True)


def main():
    python = anchor_python()
    if not python:
        print("# skip: no onnxruntime for the anchor")
    print("name,variant,n,unit,median,p90")
    for name in ("inception_resnet_v1", "mobilefacenet"):
        path = f"build/bench_{name}.onnx"
        subprocess.run([ctl, "model", "new", "--arch", name, "-o", path],
                       check=True, capture_output=True)
        for threads in (1, 2):
            for batch in (1, 2, 16):
                setting(name, path, threads, batch, python)


main()
