#!/usr/bin/env python3
"""The daemon end to end, as CSV: name,variant,n,unit,median,p90.

usage: bench/serve.py [--seconds S] [--minutes M] [--faces N]

Verifies a second and latencies at 1, 8 and 64 connections, with photos of
250x250 and 1024x768; batch sizes seen; start to ready and identify with N
faces enrolled (100,000); resident memory at the start and the end of M minutes
of mixed load (0: left out). Needs FACENETD_DATA or ../shared/data; without, a
printed skip.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "http"))

import cases_faces  # noqa: E402
from client import BUILD, PHOTO, Daemon, Skip, read, run  # noqa: E402

LOAD = os.path.join(BUILD, "bench", "bench_http")


def row(name, variant, n, unit, median, p90=""):
    print("%s,%s,%d,%s,%s,%s" % (name, variant, n, unit, median, p90))
    sys.stdout.flush()


class Place:
    """What cases_faces needs of a context."""

    def __init__(self):
        self.dir, self.made = tempfile.mkdtemp(prefix="facenetd-bench-"), {}

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def path(self, name):
        return os.path.join(self.dir, name)


def load(d, path, connections, seconds, *photos):
    out = run(LOAD, "load", str(d.port), path, str(connections), str(seconds), *photos).stdout
    n, took, median, p90, p99, refused = out.split()
    return int(n), float(took), float(median), float(p90), float(p99), int(refused)


def histogram(d, name):
    text = d.get("/metrics").body.decode()
    return {le: int(n) for le, n in
            re.findall(r'^%s_bucket\{le="([^"]+)"\} (\d+)$' % name, text, re.M)}


def batch_sizes(d, before):
    """The median batch of the load since before, as the bucket it is in."""
    after = histogram(d, "facenetd_batch_faces")
    counts = [(le, after[le] - before.get(le, 0)) for le in after]
    total = counts[-1][1]
    at = lambda q: next(le for le, n in counts if n >= q * total)  # noqa: E731
    return total, at(0.5), at(0.9)


def verifies(d, photos, seconds):
    for size, pair in photos.items():
        load(d, "/verify", 4, 1, *pair)
        for connections in (1, 8, 64):
            variant = "%s_c%d" % (size, connections)
            before = histogram(d, "facenetd_batch_faces")
            n, took, median, p90, p99, refused = load(d, "/verify", connections, seconds, *pair)
            row("verify_rate", variant, n, "1/s", "%.1f" % (n / took))
            row("verify_latency", variant, n, "ms", "%.2f" % median, "%.2f" % p90)
            row("verify_latency_p99", variant, n, "ms", "%.2f" % p99)
            total, mid, high = batch_sizes(d, before)
            row("batch_faces", variant, total, "faces", mid, high)
            if refused:
                row("verify_refused", variant, refused, "requests", refused)


def crowd(place, photo, faces, seconds):
    data = place.path("crowd")
    models = cases_faces.models(place)
    with Daemon(models, data=data) as d:
        model = d.get("/info").json["model"]
    began = time.monotonic()
    run(LOAD, "fill", data, model["id"], str(model["embedding_size"]), str(faces))
    row("fill_store", str(faces), faces, "faces/s", "%.0f" % (faces / (time.monotonic() - began)))
    began = time.monotonic()
    with Daemon(models, data=data) as d:
        row("start_to_ready", "%d_faces" % faces, 1, "ms",
            "%.0f" % ((time.monotonic() - began) * 1e3))
        held = d.get("/info").json["gallery"]["faces"]
        if held != faces:
            raise SystemExit("bench: %d faces in memory, not %d" % (held, faces))
        for connections in (1, 8):
            n, took, median, p90, p99, _ = load(d, "/identify?gallery=crowd", connections, seconds,
                                                photo)
            variant = "%d_faces_c%d" % (faces, connections)
            row("identify_rate", variant, n, "1/s", "%.1f" % (n / took))
            row("identify_latency", variant, n, "ms", "%.2f" % median, "%.2f" % p90)
            row("identify_latency_p99", variant, n, "ms", "%.2f" % p99)
        text = d.get("/metrics").body.decode()
        total, count = (float(re.search(r"^facenetd_search_seconds_%s (\S+)" % k, text, re.M)[1])
                        for k in ("sum", "count"))
        row("search", "%d_faces" % faces, int(count), "ms", "%.3f" % (total / count * 1e3))
        row("resident_memory", "%d_faces" % faces, 1, "MiB",
            "%.1f" % (d.metric("process_resident_memory_bytes") / 2**20))


def mixed(place, photos, minutes):
    """Verify, identify, enroll and erase side by side; memory first and last."""
    with Daemon(cases_faces.models(place)) as d:
        small = photos["250x250"]
        pair = (small, photos["1024x768"])
        stop = time.monotonic() + minutes * 60
        done, failures = [0], []

        def churn():
            i = 0
            while time.monotonic() < stop and not failures:
                subject = "s%d" % (i % 50)
                a = d.post("/enroll", [("subject", subject), ("image", read(small[0]))])
                b = d.delete("/subjects/" + subject)
                if a.status not in (201, 503) or b.status not in (200, 404, 503):
                    failures.append((a, b))
                done[0] += 2
                i += 1

        def post():
            k = 0
            while time.monotonic() < stop and not failures:
                one, two = pair[k % 2]
                a = d.post("/verify", [("image1", read(one)), ("image2", read(two))])
                b = d.post("/identify?faces=all", read(one))
                if a.status not in (200, 503) or b.status not in (200, 503):
                    failures.append((a, b))
                done[0] += 2
                k += 1
        threads = [threading.Thread(target=f) for f in (churn, post, post, post)]
        for t in threads:
            t.start()
        # Buffers and caches fill during the first tenth.
        time.sleep(minutes * 60 / 10)
        memory = [d.metric("process_resident_memory_bytes") / 2**20]
        while time.monotonic() < stop:
            time.sleep(min(5, max(0, stop - time.monotonic())))
            memory.append(d.metric("process_resident_memory_bytes") / 2**20)
        for t in threads:
            t.join()
        if failures:
            raise SystemExit("bench: mixed load: %r" % (failures[0],))
        row("mixed_load", "%g_minutes" % minutes, done[0], "requests", done[0])
        row("resident_memory_start", "mixed", 1, "MiB", "%.1f" % memory[0])
        row("resident_memory_end", "mixed", 1, "MiB", "%.1f" % memory[-1])
        row("resident_memory_most", "mixed", len(memory), "MiB", "%.1f" % max(memory))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--minutes", type=float, default=0)
    p.add_argument("--faces", type=int, default=100000)
    arg = p.parse_args()
    place = Place()
    try:
        sources = [cases_faces.photo_path("Anthony_Hopkins_000%d" % i) for i in (1, 2)]
        photos = {"250x250": sources}
        photos["1024x768"] = [place.path("large%d.jpg" % i) for i in (1, 2)]
        for source, large in zip(sources, photos["1024x768"]):
            run(PHOTO, "size", source, "1024", "768", large)
        with Daemon(cases_faces.models(place)) as d:
            verifies(d, photos, arg.seconds)
        crowd(place, sources[0], arg.faces, arg.seconds)
        if arg.minutes > 0:
            mixed(place, photos, arg.minutes)
    except Skip as e:
        print("skip: %s" % e, file=sys.stderr)
    finally:
        shutil.rmtree(place.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
