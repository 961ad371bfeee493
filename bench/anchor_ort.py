#!/usr/bin/env python3
"""ONNX Runtime on one network in one setting: bench/engine.py's anchor.
usage: anchor_ort.py MODEL.onnx THREADS BATCH SECONDS
Prints "median_ms p90_ms" for a whole batch."""
import sys
import time

import numpy as np
import onnxruntime as ort

model, threads, batch, seconds = sys.argv[1], *map(float, sys.argv[2:])
options = ort.SessionOptions()
options.intra_op_num_threads = int(threads)
options.inter_op_num_threads = 1
session = ort.InferenceSession(model, options,
                               providers=["CPUExecutionProvider"])
entry = session.get_inputs()[0]
x = np.random.default_rng(1).uniform(
    -1, 1, [int(batch)] + entry.shape[1:]).astype(np.float32)
for _ in range(3):
    session.run(None, {entry.name: x})
runs, end = [], time.perf_counter() + seconds
while len(runs) < 5 or time.perf_counter() < end:
    start = time.perf_counter()
    session.run(None, {entry.name: x})
    runs.append(time.perf_counter() - start)
runs.sort()
print(f"{runs[len(runs) // 2] * 1e3:.4f} {runs[len(runs) * 9 // 10] * 1e3:.4f}")
