#!/usr/bin/env python3
"""PyTorch on the card, what bench_card's figures stand beside: float16,
channels last, eager and compiled, with the copies that a server pays.
usage: gpu_torch.py ARCH BATCH...    ARCH: inception_resnet_v1, mobilefacenet
Prints CSV rows: name,variant,n,unit,median,p90."""
import os
import sys
import time

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import anchor_torch  # noqa: E402

RUNS = 300


def measure(run, label, n):
    for _ in range(10):
        run()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    median = times[RUNS // 2]
    print(f"torch_run,{label},{n},us,{median:.1f},{times[RUNS * 9 // 10]:.1f}")
    print(f"torch_rate,{label},{n},faces/s,{1e6 * n / median:.0f},", flush=True)


def main():
    arch, batches = sys.argv[1], [int(b) for b in sys.argv[2:]]
    make = {"inception_resnet_v1": anchor_torch.inception_resnet_v1,
            "mobilefacenet": anchor_torch.mobilefacenet}[arch]
    dim = 512 if arch == "inception_resnet_v1" else 128
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    net, side = make(dim)
    net = net.eval().half().cuda().to(memory_format=torch.channels_last)
    compiled = torch.compile(net, mode="max-autotune")
    with torch.inference_mode():
        for n in batches:
            host = torch.rand(n, 3, side, side).pin_memory()
            back = torch.empty(n, dim).pin_memory()

            def run(model):
                x = host.cuda(non_blocking=True).half()
                x = x.contiguous(memory_format=torch.channels_last)
                back.copy_(model(x).float(), non_blocking=True)
                torch.cuda.synchronize()

            measure(lambda: run(net), f"{arch} f16 eager", n)
            try:
                measure(lambda: run(compiled), f"{arch} f16 compiled", n)
            except Exception as why:  # a compiler that is not there
                print(f"skip: torch.compile: {str(why)[:200]}",
                      file=sys.stderr)


main()
