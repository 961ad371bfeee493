#!/usr/bin/env python3
"""The tree's own rules, checked: which folder may include which, which
library has its one home, headers that compile alone, exported symbols that
carry their file's prefix, sizes. Run from the root after V=check was built
(make check does both)."""
import glob
import os
import re
import subprocess
import sys

# folder -> folders whose headers it may include, besides its own
ALLOWED = {
    "core/base": [],
    "core/engine": ["core/base"],
    "core/arch": ["core/engine", "core/base"],
    "core/face": ["core/engine", "core/base"],
    "core/train": ["core/face", "core/arch", "core/engine", "core/base"],
    "config": ["core/base"],
    "store": ["core/base", "core/face", "core/engine"],
    "daemon": ["core/base", "core/engine", "core/face", "core/arch",
               "core/train", "store", "config"],
    "gpu": ["core/engine", "core/base"],
    "tools": ["core/base", "core/engine", "core/face", "core/arch",
              "core/train"],
}
# library header -> where alone it may stand (regular expressions of paths)
HOMES = {
    r"microhttpd\.h": r"daemon/http\w*\.[ch]",
    r"sqlite3\.h": r"store/store\w*\.[ch]",
    r"jansson\.h": r"(daemon/(api|form|job|route|thresholds)\w*|tools/\w+)\.[ch]",
    r"(jpeglib|png|webp/\w+)\.h": r"core/face/image\w*\.[ch]",
    r"onnx\.pb-c\.h": r"core/engine/onnx\w*\.[ch]",
    r"oneapi/dnnl/.*": r"core/engine/onednn\w*\.[ch]",
    r"cblas\.h": r"core/(engine/cpu|face/distance|train/triplet)\.c",
    r"gnutls/.*": r"(core/base/crypto|daemon/http_(tls|conn))\.[ch]",
    r"curl/.*": r"tools/\w+\.c",
    r"cuda.*|cudnn.*": r"gpu/.*",
}
MAX_LINES = 1000
MAX_HEADER = 220
# headers that are code, shared by a card and this processor
CODE_HEADERS = r"gpu/\w*arith\w*\.h"
bad = []


def say(path, text):
    bad.append(f"{path}: {text}")


def sources():
    for folder in ALLOWED:
        for path in sorted(glob.glob(f"{folder}/*.[ch]")):
            yield folder, path


def includes():
    for folder, path in sources():
        text = open(path).read()
        for name in re.findall(r'#include "([^"]+)"', text):
            home = os.path.dirname(name)
            if not home or home == folder:
                continue
            if home not in ALLOWED[folder]:
                say(path, f"may not include {name}")
        for name in re.findall(r"#include <([^>]+)>", text):
            for library, where in HOMES.items():
                if re.fullmatch(library, name) and \
                        not re.fullmatch(where, path):
                    say(path, f"<{name}> has another home")


def sizes():
    for _, path in sources():
        n = len(open(path).read().splitlines())
        if n > MAX_LINES:
            say(path, f"{n} lines; split it")
        if path.endswith(".h") and n > MAX_HEADER and \
                not re.fullmatch(CODE_HEADERS, path):
            say(path, f"{n} lines is long for a header")


def headers():
    compiler = os.environ.get("CC") or "gcc"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "libmicrohttpd", "jansson", "gnutls",
         "openblas"], capture_output=True, text=True).stdout.split()
    for _, path in sources():
        if not path.endswith(".h"):
            continue
        done = subprocess.run(
            [compiler, "-std=c11", "-D_GNU_SOURCE", "-I.",
             "-Ibuild/check/gen", *flags, "-Wall", "-Wextra", "-Werror",
             "-fsyntax-only", "-x", "c", "-"],
            input=f'#include "{path}"\n#include "{path}"\n',
            capture_output=True, text=True)
        if done.returncode:
            say(path, "does not compile alone: " +
                done.stderr.strip().splitlines()[0])


def declared():
    """Symbols of every header, with the header's own stem."""
    for _, path in sources():
        if path.endswith(".h"):
            yield path, open(path).read()


def prefixes():
    """A symbol that an object exports is declared in some header, and is not
    a name that says nothing of where it lives."""
    text = "\n".join(t for _, t in declared())
    for obj in sorted(glob.glob("build/check/*/*.o") +
                      glob.glob("build/check/*/*/*.o")):
        source = obj[len("build/check/"):-2] + ".c"
        if not os.path.exists(source) or source.startswith("tests"):
            continue
        names = subprocess.run(["nm", "-g", "--defined-only", obj],
                               capture_output=True, text=True).stdout
        for name in (row.split()[-1] for row in names.splitlines()):
            if name == "main":
                continue
            if not re.search(rf"\b{re.escape(name)}\b", text):
                say(source, f"exports {name}, which no header declares")
            if "_" not in name:
                say(source, f"exports {name}, which has no prefix")


includes()
sizes()
headers()
prefixes()
for row in bad:
    print(row)
print(f"{len(bad)} findings in the tree" if bad else "the tree is in order")
sys.exit(bool(bad))
