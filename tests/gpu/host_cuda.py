#!/usr/bin/env python3
"""C++ for tests/gpu/host_cuda.h from a .cu or .cuh file: launches become calls,
shared memory is announced, CUDA's headers are replaced. What it does not
understand is an error; lines stay where they are.
  host_cuda.py IN OUT"""
import re
import sys

path, to = sys.argv[1:]
SPACE = r"(?:\s|\\\n)*"
text = open(path).read()


def fail(at, what):
    sys.exit(f"{path}:{text.count(chr(10), 0, at) + 1}: {what}")


def closing(at):
    """Where the parenthesis that opens at `at` closes."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    fail(at, "a parenthesis that does not close")


# Comments say nothing, but their lines count.
text = re.sub(r"/\*.*?\*/|//[^\n]*",
              lambda m: "".join(re.findall(r"\\?\n", m[0])) or " ", text,
              flags=re.S)
while "<<<" in text:
    at = text.index("<<<")
    kernel = re.search(rf"(?<![\w#])\w+(?:##\w+)?{SPACE}(?:<[^<>;{{}}]*>)?{SPACE}\Z",
                       text[:at])
    end = text.find(">>>", at)
    opens = re.compile(rf">>>{SPACE}\(").match(text, max(end, 0))
    if not kernel or not opens or re.search(r"[;{}]", text[at:end]):
        fail(at, "a launch that is not kernel<<<...>>>(...)")
    close = closing(opens.end() - 1)
    if not re.compile(rf"{SPACE};").match(text, close + 1):
        fail(at, "a launch that is no statement")
    text = (text[:kernel.start()] + f"HOST_LAUNCH(({kernel[0]}), (" +
            text[at + 3:end] + f"), {text[end + 3:close + 1]})" +
            text[close + 1:])
if ">>>" in text:
    fail(text.index(">>>"), "what is it that ends here?")


def announce(m):
    names = [re.fullmatch(rf".*?(\w+){SPACE}(?:\[[^\]]*\]{SPACE})*", d, re.S)
             for d in m[1].split(",")]
    if not all(names) or re.search(r"[=({]", re.sub(r"__align__\(\w+\)", "", m[1])):
        fail(m.start(), "shared memory that is not plain arrays")
    return m[0] + "".join(f" HOST_SHARED({n[1]});" for n in names)


if re.search(r"extern\s+__shared__", text):
    fail(text.index("extern"), "shared memory of a launch is not known here")
text = re.sub(r"__shared__\s([^;]*);", announce, text)
text = re.sub(r"#include <cuda_\w+\.h>", '#include "tests/gpu/host_cuda.h"', text)
text = re.sub(r"#include <mma\.h>", '#include "tests/gpu/host_wmma.h"', text)
with open(to, "w") as out:
    out.write(f'#line 1 "{path}"\n{text}')
