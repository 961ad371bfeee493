#!/usr/bin/env python3
"""The plugin beside PyTorch, from the CSV of bench_card, bench_steps and
gpu_torch.py.
usage: gpu_table.py FILE...
Prints CSV rows of ratios (above 1: the plugin is quicker), then a table in
lines that begin with #: a network and batch a line, times in microseconds."""
import sys

MODES = ("eager", "folded", "compiled", "tuned")


def read(paths):
    """(what, network, batch) to the median."""
    found = {}
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                cells = line.rstrip("\n").split(",")
                if len(cells) != 6 or not cells[2].isdigit():
                    continue
                name, variant, n, _, median, _ = cells
                words = variant.split()
                key = None
                if name == "card_run" and words[2:] == ["1", "plans"]:
                    key = "card"
                elif name == "card_rate" and words[2:] == ["2", "plans"]:
                    key = "two"
                elif name in ("card_device", "card_steps"):
                    key = name[5:]
                elif name == "torch_run" and words[-1] in MODES:
                    key = words[-1]
                if key:
                    found[key, words[0], int(n)] = float(median)
    return found


def cell(value, digits=0):
    return "%10s" % ("-" if value is None else "%.*f" % (digits, value))


def main():
    found = read(sys.argv[1:])
    rows = sorted({(net, n) for _, net, n in found})
    lines = ["# %-20s %5s" % ("network", "batch") + "".join(
        "%10s" % h for h in ("run", "device", "steps", "2 plans/s", *MODES,
                             *("/" + m for m in MODES)))]
    for net, n in rows:
        ours = found.get(("card", net, n))
        theirs = [found.get((m, net, n)) for m in MODES]
        ratios = [t / ours if t and ours else None for t in theirs]
        for mode, ratio in zip(MODES, ratios):
            if ratio:
                print("card_ratio,%s torch %s/facenetd,%d,ratio,%.2f," % (
                    net, mode, n, ratio))
        lines.append("# %-20s %5d" % (net, n) + "".join(
            [cell(ours), cell(found.get(("device", net, n))),
             cell(found.get(("steps", net, n))),
             cell(found.get(("two", net, n)))] +
            [cell(t) for t in theirs] + [cell(r, 2) for r in ratios]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
