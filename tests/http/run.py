#!/usr/bin/env python3
"""HTTP tests against the real daemon, on a loopback port of its own.

usage: run.py [-v] [NAME-PART]...

plain*: tiny networks with random weights, no data needed. demo*: the default models
and demo pictures of models/. faces*: real weights
and photos from FACENETD_DATA or ../shared/data; skipped without. card*, detection*: a card
that is played, see tests/fake_gpu.c. device*: the card of FACENETD_PLUGIN, on which
all daemons then serve, else an emulated one. jobs*: training
jobs, with a trainer that only plays one. service*: as
systemd runs it; skipped without systemd-socket-activate. Scenario
files (*.json: a list of requests with the expected status and members of the
answer) run against the plain daemon. Ends with one line of counts.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import cases_card  # noqa: E402
import cases_card_gallery  # noqa: E402
import cases_demo  # noqa: E402
import cases_detection  # noqa: E402
import cases_device  # noqa: E402
import cases_faces  # noqa: E402
import cases_jobs  # noqa: E402
import cases_models  # noqa: E402
import cases_plain  # noqa: E402
import cases_service  # noqa: E402
import cases_train  # noqa: E402
from client import BUILD, CTL, DAEMON, PHOTO, Daemon, Skip, expect  # noqa: E402


class Context:
    """Directories, photos and daemons that cases share; made when first
    asked for."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="facenetd-http-")
        self.made = {}

    def once(self, name, make):
        if name not in self.made:
            try:
                self.made[name] = make()
            except Exception as e:
                self.made[name] = e
        if isinstance(self.made[name], Exception):
            raise self.made[name]
        return self.made[name]

    def path(self, name):
        return os.path.join(self.dir, name)

    def close(self):
        for name, thing in self.made.items():
            if isinstance(thing, Daemon) and thing.process.poll() is None:
                code = thing.stop()
                if code != 0:
                    raise AssertionError("%s: exit %d: %s" % (name, code, thing.text()[-1000:]))
        shutil.rmtree(self.dir, ignore_errors=True)


def scenario(ctx, row):
    """One row of a scenario file against the plain daemon."""
    d = cases_plain.daemon(ctx)
    headers = dict(row.get("headers", {}))
    if "form" in row:
        a = d.post(row["path"], [(k, cases_plain.value(ctx, v)) for k, v in row["form"]],
                   headers, method=row["method"])
    elif "json" in row:
        fields = {k: cases_plain.json_value(ctx, v) for k, v in row["json"].items()}
        a = d.post(row["path"], fields, headers, method=row["method"])
    else:
        body = cases_plain.value(ctx, row["body"]) if "body" in row else None
        if isinstance(body, str):
            body = body.encode()
        a = d.request(row["method"], row["path"], body, headers)
    expect(a, row["status"], row.get("code"), **row.get("expect", {}))
    for text in row.get("says", []):
        assert text in a.json["detail"], "detail lacks %r: %r" % (text, a)
    for name, value in row.get("headers_expected", {}).items():
        assert a.headers.get(name) == value, "%s: %r" % (name, a.headers.get(name))


def collect():
    cases = []
    for file in sorted(os.listdir(HERE)):
        if file.endswith(".json"):
            with open(os.path.join(HERE, file), encoding="utf-8") as f:
                for row in json.load(f):
                    cases.append((file[:-5] + ": " + row["name"],
                                  lambda ctx, row=row: scenario(ctx, row)))
    for module in (cases_plain, cases_models, cases_card, cases_card_gallery, cases_detection,
                   cases_device, cases_jobs, cases_train, cases_service, cases_demo, cases_faces):
        prefix = module.__name__[len("cases_"):]
        for name, fn in module.CASES:
            cases.append((prefix + ": " + name, fn))
    return cases


def main():
    args = [a for a in sys.argv[1:] if a != "-v"]
    verbose = "-v" in sys.argv
    for path in (DAEMON, CTL, PHOTO):
        if not os.path.exists(path):
            print("FAIL %s is not built (%s)" % (os.path.basename(path), BUILD))
            print("0 passed, 1 failed, 0 skipped")
            return 1
    passed = failed = skipped = 0
    ctx = Context()
    for name, fn in collect():
        if args and not any(a in name for a in args):
            continue
        began = time.monotonic()
        try:
            fn(ctx)
            passed += 1
            print("PASS %s (%.2f s)" % (name, time.monotonic() - began))
        except Skip as e:
            skipped += 1
            print("SKIP %s: %s" % (name, e))
        except Exception as e:
            failed += 1
            print("FAIL %s: %s: %s" % (name, type(e).__name__, str(e)[:1500]))
            if verbose:
                traceback.print_exc()
        sys.stdout.flush()
    try:
        ctx.close()
        passed += 1
        print("PASS daemons end cleanly")
    except Exception as e:
        failed += 1
        print("FAIL daemons end cleanly: %s" % e)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
