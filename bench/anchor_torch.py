#!/usr/bin/env python3
"""PyTorch, one training step: bench/train.py's anchor.
usage: anchor_torch.py ARCH BATCH THREADS STEPS contiguous|channels_last
                       [cuda bf16|tf32]
ARCH: inception_resnet_v1, mobilefacenet; layer by layer what core/arch builds.
A step: forward, unit vectors, triplet loss, backward, Adagrad; float32 on the
CPU, on the card bf16 by autocast or TF32, with the batch's copy. Prints
"median_ms p90_ms cpu_ms n_parameters first_loss last_loss"."""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


def unit(n_in, n_out, kernel, stride=1, padding=0, groups=1, act=None):
    """Convolution without bias, batch norm, activation."""
    layers = [nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups,
                        bias=False), nn.BatchNorm2d(n_out, eps=0.001)]
    if act == "relu":
        layers.append(nn.ReLU(inplace=True))
    elif act == "prelu":
        layers.append(nn.PReLU(n_out))
    return nn.Sequential(*layers)


def conv(n_in, n_out, kernel, stride=1, padding=0):
    return unit(n_in, n_out, kernel, stride, padding, act="relu")


class Residual(nn.Module):
    """x + scale * conv(concat of branches), then ReLU but for the last."""

    def __init__(self, channels, branches, width, scale, relu=True):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.conv2d = nn.Conv2d(width, channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x):
        y = self.conv2d(torch.cat([b(x) for b in self.branches], 1))
        y = x + y * self.scale if self.scale != 1 else x + y
        return F.relu(y, inplace=True) if self.relu else y


class Parallel(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([b(x) for b in self.branches], 1)


def block_a():
    return Residual(256, [
        conv(256, 32, 1),
        nn.Sequential(conv(256, 32, 1), conv(32, 32, 3, 1, 1)),
        nn.Sequential(conv(256, 32, 1), conv(32, 32, 3, 1, 1),
                      conv(32, 32, 3, 1, 1))], 96, 0.17)


def block_b():
    return Residual(896, [
        conv(896, 128, 1),
        nn.Sequential(conv(896, 128, 1), conv(128, 128, (1, 7), 1, (0, 3)),
                      conv(128, 128, (7, 1), 1, (3, 0)))], 256, 0.10)


def block_c(scale, relu):
    return Residual(1792, [
        conv(1792, 192, 1),
        nn.Sequential(conv(1792, 192, 1), conv(192, 192, (1, 3), 1, (0, 1)),
                      conv(192, 192, (3, 1), 1, (1, 0)))], 384, scale, relu)


def inception_resnet_v1(dim):
    stem = [conv(3, 32, 3, 2), conv(32, 32, 3), conv(32, 64, 3, 1, 1),
            nn.MaxPool2d(3, 2), conv(64, 80, 1), conv(80, 192, 3),
            conv(192, 256, 3, 2)]
    reduction_a = Parallel(
        conv(256, 384, 3, 2),
        nn.Sequential(conv(256, 192, 1), conv(192, 192, 3, 1, 1),
                      conv(192, 256, 3, 2)),
        nn.MaxPool2d(3, 2))
    reduction_b = Parallel(
        nn.Sequential(conv(896, 256, 1), conv(256, 384, 3, 2)),
        nn.Sequential(conv(896, 256, 1), conv(256, 256, 3, 2)),
        nn.Sequential(conv(896, 256, 1), conv(256, 256, 3, 1, 1),
                      conv(256, 256, 3, 2)),
        nn.MaxPool2d(3, 2))
    return nn.Sequential(
        *stem, *[block_a() for _ in range(5)], reduction_a,
        *[block_b() for _ in range(10)], reduction_b,
        *[block_c(0.20, True) for _ in range(5)], block_c(1, False),
        nn.AdaptiveAvgPool2d(1), nn.Dropout(0.6), nn.Flatten(),
        nn.Linear(1792, dim, bias=False), nn.BatchNorm1d(dim, eps=0.001)), 160


class Bottleneck(nn.Module):
    def __init__(self, n_in, wide, n_out, stride=1):
        super().__init__()
        self.layers = nn.Sequential(
            unit(n_in, wide, 1, act="prelu"),
            unit(wide, wide, 3, stride, 1, wide, act="prelu"),
            unit(wide, n_out, 1))
        self.shortcut = stride == 1

    def forward(self, x):
        y = self.layers(x)
        return y + x if self.shortcut else y


def mobilefacenet(dim):
    return nn.Sequential(
        unit(3, 64, 3, 2, 1, act="prelu"), unit(64, 64, 3, 1, 1, 64, "prelu"),
        Bottleneck(64, 128, 64, 2),
        *[Bottleneck(64, 128, 64) for _ in range(4)],
        Bottleneck(64, 256, 128, 2),
        *[Bottleneck(128, 256, 128) for _ in range(6)],
        Bottleneck(128, 512, 128, 2),
        *[Bottleneck(128, 256, 128) for _ in range(2)],
        unit(128, 512, 1, act="prelu"), unit(512, 512, 7, groups=512),
        nn.Flatten(), nn.Linear(512, dim), nn.BatchNorm1d(dim, eps=2e-5)), 112


class RootOfSquares(nn.Module):
    """The paper's L2 pooling as ONNX's LpPool: 3x3, stride 1."""

    def forward(self, x):
        return (F.avg_pool2d(x * x, 3, 1, 1) * 9).sqrt()


def plain(n_in, n_out, kernel, stride=1):
    """Convolution with bias, ReLU; no batch norm."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2),
                         nn.ReLU(inplace=True))


def inception(n_in, c1, r3, c3, r5, c5, pool, proj, stride=1):
    """A row of table 2 of the FaceNet paper; 0 leaves a branch out."""
    branches = [plain(n_in, c1, 1)] if c1 else []
    branches.append(nn.Sequential(plain(n_in, r3, 1), plain(r3, c3, 3, stride)))
    branches.append(nn.Sequential(plain(n_in, r5, 1), plain(r5, c5, 5, stride)))
    pool = nn.MaxPool2d(3, stride, 1) if pool == "max" else RootOfSquares()
    branches.append(nn.Sequential(pool, plain(n_in, proj, 1)) if proj else pool)
    return Parallel(*branches)


def nn2(dim):
    def lrn():
        return nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
    return nn.Sequential(
        plain(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), lrn(),
        plain(64, 64, 1), plain(64, 192, 3), lrn(), nn.MaxPool2d(3, 2, 1),
        inception(192, 64, 96, 128, 16, 32, "max", 32),
        inception(256, 64, 96, 128, 32, 64, "l2", 64),
        inception(320, 0, 128, 256, 32, 64, "max", 0, 2),
        inception(640, 256, 96, 192, 32, 64, "l2", 128),
        inception(640, 224, 112, 224, 32, 64, "l2", 128),
        inception(640, 192, 128, 256, 32, 64, "l2", 128),
        inception(640, 160, 144, 288, 32, 64, "l2", 128),
        inception(640, 0, 160, 256, 64, 128, "max", 0, 2),
        inception(1024, 384, 192, 384, 48, 128, "l2", 128),
        inception(1024, 384, 192, 384, 48, 128, "max", 128),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, dim)), 224


def main():
    arch, batch, threads, steps, order, *card = sys.argv[1:]
    batch = int(batch)
    bf16 = card[1:] == ["bf16"]
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    net, side = {"inception_resnet_v1": inception_resnet_v1,
                 "mobilefacenet": mobilefacenet}[arch](128)
    x = torch.rand(batch, 3, side, side) * 2 - 1
    if order == "channels_last":
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if card:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
        net, x = net.cuda(), x.pin_memory()
    optim = torch.optim.Adagrad(net.parameters(), lr=0.01,
                                initial_accumulator_value=0.1, foreach=True)

    def step():
        optim.zero_grad(set_to_none=True)
        on = x.cuda(non_blocking=True) if card else x
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            y = net(on)
        y = F.normalize(y.float()).view(batch // 3, 3, -1)
        near = (y[:, 0] - y[:, 1]).square().sum(1)
        far = (y[:, 0] - y[:, 2]).square().sum(1)
        loss = F.relu(near - far + 0.2).mean()
        loss.backward()
        optim.step()
        return loss.item()

    first, last = step(), 0
    runs, cpu = [], []
    for _ in range(int(steps)):
        start, busy = time.perf_counter(), time.process_time()
        last = step()
        runs.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    runs.sort()
    cpu.sort()
    at = len(runs)
    print(f"{runs[at // 2] * 1e3:.4f} {runs[at * 9 // 10] * 1e3:.4f} "
          f"{cpu[at // 2] * 1e3:.4f} "
          f"{sum(p.numel() for p in net.parameters())} {first:.6f} {last:.6f}")


if __name__ == "__main__":
    main()
