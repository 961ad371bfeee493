#!/usr/bin/env python3
"""Stands for `facenetctl train` in the tests of jobs: speaks the same protocol
on --progress_fd and ends as it is told. What it does is said by the arguments
of a job that mean little to it: --freeze_until NAME picks the behaviour.
`probe` writes down how it was started, into probe.json where it runs."""

import json
import os
import resource
import signal
import sys
import time

ARGS = {}
for word in sys.argv[2:]:
    name, _, value = word.lstrip("-").partition("=")
    ARGS[name] = value
FD = int(ARGS["progress_fd"])
WAY = ARGS.get("freeze_until", "publish")
STOP = []


def raw(data):
    while data:
        data = data[os.write(FD, data):]


def say(event, **fields):
    raw((json.dumps(dict(event=event, **fields)) + "\n").encode())


def step(n):
    say("step", step=n, epoch=1 + n // 100, batch=n % 100, batches=100, loss=1.0 / (n + 1),
        rate=0.05, triplets=3 * n, faces_per_s=12.5, left_s=100 - n)


def evaluation(when, accuracy):
    say("evaluation", when=when, set="held", step=0, accuracy=accuracy, accuracy_std=0.01,
        val={"0.1": 0.9, "0.01": accuracy - 0.1, "0.001": None})


def checkpoint(n):
    folder = os.path.join(ARGS["models_base_dir"], "run")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "checkpoint-%d" % n)
    with open(path, "w") as f:
        f.write(str(n))
    say("checkpoint", step=n, path=path)


def finish(outcome, text, code, model=None):
    say("result", outcome=outcome, text=text, model=model)
    sys.exit(code)


def stopped(*_):
    checkpoint(7)
    finish("stopped", "stopped; it can be resumed", 3)


def publish(text="better"):
    with open(ARGS["pretrained_model"], "rb") as f:
        data = f.read()
    with open(ARGS["output"], "wb") as f:
        f.write(data)
    evaluation("after", 0.9)
    finish("published", text, 0, ARGS["output"])


def people(folder):
    return {p: sorted(os.listdir(os.path.join(folder, p))) for p in sorted(os.listdir(folder))}


def probe():
    with open("/proc/self/stat") as f:
        stat = f.read().rsplit(")", 1)[1].split()
    with open("/proc/self/oom_score_adj") as f:
        oom = int(f.read())
    data = ARGS["data_dir"].split(":")[0]
    seen = {
        "nice": int(stat[16]), "policy": os.sched_getscheduler(0), "oom": oom,
        "group": os.getpgid(0) == os.getpid(), "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "data": resource.getrlimit(resource.RLIMIT_DATA)[0], "env": sorted(os.environ),
        "fds": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
        "args": ARGS, "cwd": os.getcwd(), "people": people(data),
        "modes": sorted({oct(os.lstat(os.path.join(d, n)).st_mode & 0o777)
                         for d, _, names in os.walk(data) for n in names})}
    with open("probe.json", "w") as f:
        json.dump(seen, f)


def flood():
    for _ in range(40):
        sys.stderr.write("x" * 99 + "\n" * 1)
        sys.stderr.write(("noise \xff\x1b[31m" * 10 + "\n") * 1000)
        raw(b"{\"event\":\"step\",\"loss\":\"no number\"}\nnot JSON\n\xff\xfe\n[]\n" * 50)
        raw(b"z" * 70000 + b"\n")
    raw(b"{\"event\":\"step\",\"step\":1,\"loss\":NaN}\n{\"event\":\"unknown\"}\n\n")
    raw(b"{\"event\":\"checkpoint\",\"step\":1,\"path\":\"/etc/passwd\"}\n")
    for n in range(1500):
        step(n)
        evaluation("during", n / 1500)
    sys.stderr.write("the last words\n")
    sys.stderr.flush()


def main():
    signal.signal(signal.SIGTERM, stopped)
    print("began as %s" % WAY, file=sys.stderr, flush=True)
    say("phase", text="before")
    evaluation("before", 0.8)
    say("phase", text="train")
    step(1)
    if WAY == "publish":
        step(2)
        publish()
    if WAY == "refuse":
        finish("refused", "VAL fell from 0.8 to 0.7", 1)
    if WAY == "fail":
        finish("failed", "data_dir: one person only", 2)
    if WAY == "mute":
        print("only these words", file=sys.stderr)
        sys.exit(2)
    if WAY == "liar":
        sys.exit(0)
    if WAY == "segv":
        checkpoint(5)
        os.kill(os.getpid(), signal.SIGSEGV)
    if WAY == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if WAY == "memory":
        x = bytearray(int(4e9))
        finish("failed", "there was memory for %d bytes" % len(x), 2)
    if WAY == "probe":
        probe()
        publish()
    if WAY == "flood":
        flood()
        publish()
    if WAY == "orphan":
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        publish("left one behind")
    if WAY == "resume":
        if "resume" in ARGS:
            with open(ARGS["resume"]) as f:
                publish("went on from step %s" % f.read())
        checkpoint(5)
    if WAY == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if WAY == "early":  # as it is before the program can catch signals
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    say("warning", text="hangs")
    while True:
        time.sleep(60)


main()
