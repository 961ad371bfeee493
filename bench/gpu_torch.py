#!/usr/bin/env python3
"""PyTorch on the card, what bench_card's figures stand beside: float16,
channels last, random weights, with the copies that a server pays.
usage: gpu_torch.py [--modes WORD...] [--runs N] [--seconds S] [--cpu]
                    ARCH BATCH...
ARCH: inception_resnet_v1, mobilefacenet, nn2: core/arch's, layer by layer.
Modes: eager; folded: batch norm in the convolutions and all of it replayed as a
recorded run, as bench_card's; compiled: torch.compile with recorded runs, which
needs a C compiler; tuned: that with max-autotune, minutes. What cannot run is
skipped and says so. --cpu: on the processor in float32, to try this file.
Prints CSV rows: name,variant,n,unit,median,p90."""
import argparse
import os
import sys
import time

import torch
from torch.nn import functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import anchor_torch  # noqa: E402

NETWORKS = {"inception_resnet_v1": (anchor_torch.inception_resnet_v1, 512),
            "mobilefacenet": (anchor_torch.mobilefacenet, 128),
            "nn2": (anchor_torch.nn2, 128)}
MODES = ("eager", "folded", "compiled", "tuned")


def measure(run, label, n, arg):
    for _ in range(2 if arg.cpu else 10):
        run()
    times, end = [], time.perf_counter() + arg.seconds
    while len(times) < arg.runs and time.perf_counter() < end or not times:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    median = times[len(times) // 2]
    print(f"torch_run,{label},{n},us,{median:.1f},"
          f"{times[len(times) * 9 // 10]:.1f}")
    print(f"torch_rate,{label},{n},faces/s,{1e6 * n / median:.0f},", flush=True)


class Faces:
    """A batch in pinned memory, to the card, through, and back."""

    def __init__(self, n, side, dim, cpu):
        self.cpu = cpu
        self.host, self.back = torch.rand(n, 3, side, side), torch.empty(n, dim)
        if not cpu:
            self.host, self.back = self.host.pin_memory(), self.back.pin_memory()

    def put(self, net):
        x = self.host if self.cpu else \
            self.host.cuda(non_blocking=True).half()
        y = net(x.contiguous(memory_format=torch.channels_last))
        self.back.copy_(F.normalize(y.float()), non_blocking=True)

    def run(self, net):
        self.put(net)
        self.wait()

    def wait(self):
        if not self.cpu:
            torch.cuda.synchronize()


def folded(net):
    from torch.fx.experimental.optimization import fuse
    return fuse(net).to(memory_format=torch.channels_last)


def recorded(faces, net):
    """The same as one recorded run, for each call."""
    if faces.cpu:
        return lambda: faces.run(net)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            faces.put(net)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        faces.put(net)

    def run():
        graph.replay()
        faces.wait()
    return run


def runs_of(mode, net, faces):
    if mode == "eager":
        return lambda: faces.run(net)
    if mode == "folded":
        return recorded(faces, folded(net))
    how = "max-autotune" if mode == "tuned" else "reduce-overhead"
    compiled = torch.compile(net, mode=how, dynamic=False)
    return lambda: faces.run(compiled)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--modes", nargs="+", choices=MODES, default=MODES[:3])
    p.add_argument("--runs", type=int, default=300)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--cpu", action="store_true")
    p.add_argument("arch", choices=sorted(NETWORKS))
    p.add_argument("batch", type=int, nargs="+")
    arg = p.parse_args()
    make, dim = NETWORKS[arg.arch]
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    net, side = make(dim)
    net = net.eval()
    if not arg.cpu:
        net = net.half().cuda()
    net = net.to(memory_format=torch.channels_last)
    kind = "f32" if arg.cpu else "f16"
    with torch.inference_mode():
        # the slow to prepare last: a time limit costs those alone
        for mode in arg.modes:
            for n in arg.batch:
                faces = Faces(n, side, dim, arg.cpu)
                try:
                    measure(runs_of(mode, net, faces),
                            f"{arg.arch} {kind} {mode}", n, arg)
                except Exception as why:  # a compiler that is not there
                    print(f"skip: PyTorch, {arg.arch} {mode}: "
                          f"{str(why)[:200]}", file=sys.stderr, flush=True)
                    break


if __name__ == "__main__":
    main()
