#!/usr/bin/env python3
"""Serving while training, as CSV: name,variant,n,unit,median,p90.

usage: bench/serve_train.py [--seconds S] [--rate R] [--rounds N]
                            [--train-device cpu|cuda] [--drawn]

Latency of /verify at low load (R requests a second, 4), alone and with a
fine-tuning job as POST /admin/finetune starts it (MobileFaceNet's weights, batch
90, niced), in rounds that alternate: the job is started anew for each. The
median, p90 and p99 of all requests of a kind, the ratio of the two p99, and
the resident memory of daemon and job. Needs FACENETD_DATA or ../shared/data;
without, a printed skip. --drawn takes models/ and its demo pictures instead,
which anybody has, cut in many ways to make a crowd of them. With
FACENETD_PLUGIN the daemon serves on that card; --train-device says where the job
trains.
"""

import argparse
import json
import os
import shutil
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
sys.path.insert(0, os.path.join(ROOT, "tests", "http"))

import cases_faces  # noqa: E402
from cases_demo import MODELS, PEOPLE as DRAWN, path as demo  # noqa: E402
from client import CARD, DATA, PHOTO, Daemon, Skip, expect, read, run  # noqa: E402
from serve import Place, row  # noqa: E402

# Few people and small rounds of selection, so that the job soon does what it
# does for hours.
SOURCE, PEOPLE = "cfp-train", 24
ARGUMENTS = {"learning_rate": 0.001, "max_nrof_epochs": 500, "people_per_batch": 12,
             "images_per_person": 10}
PATIENCE = 1200


def verifies(d, photos, seconds, rate):
    """Latencies in ms of requests at even distances, each waited for."""
    fields = [("image%d" % (i + 1), read(p)) for i, p in enumerate(photos)]
    took, begin = [], time.monotonic()
    for i in range(max(1, int(seconds * rate))):
        time.sleep(max(0, begin + i / rate - time.monotonic()))
        start = time.monotonic()
        expect(d.post("/verify", fields), 200)
        took.append((time.monotonic() - start) * 1e3)
    return took


def some_people(place):
    """A root for training with a folder of some people's photos."""
    source = os.path.join(DATA, "faces", SOURCE)
    if not os.path.isdir(source):
        raise Skip("no photos in %s" % source)
    for who in sorted(os.listdir(source))[:PEOPLE]:
        shutil.copytree(os.path.join(source, who), os.path.join(place.path("root"), "people", who))
    return place.path("root")


def drawn_people(place):
    """The same of demo pictures: for the work of it, not for what is learnt."""
    for i in range(PEOPLE):
        where = os.path.join(place.path("root"), "people", "p%02d" % i)
        os.makedirs(where)
        for k in range(ARGUMENTS["images_per_person"]):
            run(PHOTO, "cut", demo("%s-%d" % (DRAWN[i % len(DRAWN)], 1 + k % 2)), str(i // 4),
                str(k), "300", "300", os.path.join(where, "%02d.jpg" % k))
    return place.path("root")


def quantile(took, q):
    return sorted(took)[min(len(took) - 1, int(len(took) * q))]


def resident(pid):
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0


class Job:
    """A fine-tuning job that trains until it is told to stop."""

    def __init__(self, d):
        self.d = d
        self.id = expect(d.post("/admin/finetune", {"folder": "people", "arguments": ARGUMENTS}),
                         202).json["id"]
        end = time.monotonic() + PATIENCE
        while self.get()["progress"]["step"] < 3:
            job = self.get()
            if job["state"] not in ("queued", "running") or time.monotonic() > end:
                raise SystemExit("bench: job: %s" % json.dumps(job)[-1500:])
            time.sleep(0.5)

    def get(self):
        return expect(self.d.get("/admin/jobs/" + self.id), 200).json

    def memory(self):
        with open(os.path.join(self.d.data, "jobs", self.id, "record.json"),
                  encoding="utf-8") as f:
            return resident(json.load(f)["pid"])

    def stop(self):
        self.d.delete("/admin/jobs/" + self.id)
        end = time.monotonic() + PATIENCE
        while self.get()["state"] in ("queued", "running") and time.monotonic() < end:
            time.sleep(0.5)


def measure(d, photos, arg):
    took, memory, speed = {"alone": [], "training": []}, [], []
    verifies(d, photos, 2, arg.rate)
    for _ in range(arg.rounds):
        took["alone"] += verifies(d, photos, arg.seconds, arg.rate)
        job = Job(d)
        before = job.get()["progress"]["step"]
        took["training"] += verifies(d, photos, arg.seconds, arg.rate)
        state = job.get()
        if state["state"] != "running":
            raise SystemExit("bench: job: %s" % json.dumps(state)[-1500:])
        memory.append(job.memory())
        speed.append((state["progress"]["step"] - before) / arg.seconds)
        job.stop()
    for kind, ms in took.items():
        row("verify_latency", kind, len(ms), "ms", "%.1f" % quantile(ms, 0.5),
            "%.1f" % quantile(ms, 0.9))
        row("verify_latency_p99", kind, len(ms), "ms", "%.1f" % quantile(ms, 0.99))
    row("verify_latency_p99", "training/alone", len(took["alone"]), "ratio",
        "%.2f" % (quantile(took["training"], 0.99) / quantile(took["alone"], 0.99)))
    row("train_while_serving", "mobilefacenet", arg.rounds, "steps/s", "%.3f" % max(speed))
    row("resident_memory", "job", 1, "MiB", "%.0f" % max(memory))
    row("resident_memory", "daemon", 1, "MiB",
        "%.0f" % (d.metric("process_resident_memory_bytes") / 2**20))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--rate", type=float, default=4)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--train-device", default="cpu", choices=["cpu", "cuda"])
    p.add_argument("--drawn", action="store_true")
    arg = p.parse_args()
    if arg.train_device == "cuda" and not CARD:
        p.error("--train-device cuda needs FACENETD_PLUGIN")
    place = Place()
    try:
        if arg.drawn:
            models, people = MODELS, drawn_people(place)
            photos = [demo("ada-%d" % i) for i in (1, 2)]
        else:
            models, people = cases_faces.models(place), some_people(place)
            photos = [cases_faces.photo_path("Anthony_Hopkins_000%d" % i) for i in (1, 2)]
        with Daemon(models, "--train-root", people, "--train-device", arg.train_device) as d:
            measure(d, photos, arg)
    except Skip as e:
        print("skip: %s" % e, file=sys.stderr)
    finally:
        shutil.rmtree(place.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
