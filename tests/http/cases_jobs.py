"""Cases of training jobs. The trainer is fake_trainer.py, which speaks the
protocol of facenetctl train and behaves as `freeze_until` tells it."""

import json
import os
import re
import signal
import threading
import time

import cases_faces
from cases_plain import models, plain
from client import BUILD, CTL, DATA, PATIENCE, SLOW, Daemon, Skip, expect, read, run

CASES = []
HERE = os.path.dirname(os.path.abspath(__file__))
FAKE = os.path.join(HERE, "fake_trainer.py")
PLUGIN = os.path.join(BUILD, "tests", "fake_gpu.so")
ENDED = ("published", "refused", "failed", "stopped", "killed", "cancelled")


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


# --- what the cases use ----------------------------------------------------

def root(ctx):
    """Folders of photos, and ways out of them."""
    def make():
        where = ctx.path("photos")
        for person in ("ada", "bob"):
            for folder in ("people", "linked"):
                os.makedirs(os.path.join(where, folder, person))
                with open(os.path.join(where, folder, person, "1.jpg"), "wb") as f:
                    f.write(plain(ctx))
        os.mkdir(ctx.path("outside"))
        with open(ctx.path("outside/secret.jpg"), "wb") as f:
            f.write(plain(ctx))
        os.symlink(ctx.path("outside"), os.path.join(where, "out"))
        os.symlink("people", os.path.join(where, "inside"))
        os.symlink(ctx.path("outside/secret.jpg"), os.path.join(where, "linked", "ada", "2.jpg"))
        os.symlink("../bob/1.jpg", os.path.join(where, "people", "ada", "same.jpg"))
        with open(os.path.join(where, "pairs.txt"), "w", encoding="utf-8") as f:
            f.write("1 1\n")
        return where
    return ctx.once("photos", make)


def start(ctx, *args, data=None):
    return Daemon(models(ctx), "--trainer", FAKE, "--train-root", root(ctx), *args, data=data)


def daemon(ctx):
    return ctx.once("jobs-daemon", lambda: start(ctx))


def add(d, way, **fields):
    body = dict({"folder": "people", "arguments": {"freeze_until": way}}, **fields)
    if not body["folder"]:
        body = {"gallery": "default", "arguments": body["arguments"]}
    return expect(d.post("/admin/finetune", body), 202).json["id"]


def get(d, job):
    return expect(d.get("/admin/jobs/" + job), 200).json


def wait(d, job, *states, until=None, patience=PATIENCE):
    """Until the job is in one of the states, and until() of it holds."""
    end = time.monotonic() + patience
    while True:
        j = get(d, job)
        if j["state"] in states and (not until or until(j)):
            return j
        if time.monotonic() > end or (j["state"] in ENDED and j["state"] not in states):
            raise AssertionError("wanted %s: %s" % (states, json.dumps(j)[-1500:]))
        time.sleep(0.02)


def hangs(d, job):
    """The job runs and its trainer does what it is told to."""
    return wait(d, job, "running", until=lambda j: "hangs" in j["warnings"])


def folder(d, job):
    return os.path.join(d.data, "jobs", job)


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid):
    end = time.monotonic() + PATIENCE
    while alive(pid):
        assert time.monotonic() < end, "process %d still runs" % pid
        time.sleep(0.02)


def pid_of(d, job):
    with open(os.path.join(folder(d, job), "record.json"), encoding="utf-8") as f:
        return json.load(f)["pid"]


def check_serving(ctx, d):
    """It answers as ever: the two photos have no face, and that is an answer."""
    p = plain(ctx)
    expect(d.post("/verify", [("image1", p), ("image2", p)]), 422, "no_face")


# --- the good way ----------------------------------------------------------

@case("a job runs, is watched, and its model is the daemon's")
def _(ctx):
    d = daemon(ctx)
    a = expect(d.post("/admin/finetune", {
        "folder": "people", "arguments": {"freeze-until": "publish", "learning_rate": 0.01,
                                          "random_flip": True, "max_nrof_epochs": 3}}), 202)
    assert a.headers["Location"] == "/admin/jobs/" + a.json["id"]
    assert a.json["state"] in ("queued", "running") and a.json["model"] == "embedder"
    j = wait(d, a.json["id"], "published")
    assert j["text"] == "better" and j["data"] == {"folder": "people"}, j
    assert j["arguments"] == {"freeze_until": "publish", "learning_rate": "0.01",
                              "random_flip": "true", "max_nrof_epochs": "3"}, j
    assert j["progress"]["step"] == 2 and j["progress"]["triplets"] == 6, j["progress"]
    assert [p["step"] for p in j["curve"]] == [1, 2] and j["curve"][0]["loss"] == 0.5
    before, after = j["evaluations"]
    assert (before["when"], before["accuracy"]) == ("before", 0.8), before
    assert (after["when"], after["val"]) == ("after", {"0.1": 0.9, "0.01": 0.8, "0.001": None})
    assert "began as publish" in j["log"] and j["ended"] >= j["started"] >= j["created"]
    assert not j["resumable"] and not j["cancelling"]
    mine = [m for m in d.get("/admin/models").json["models"] if m["id"] == j["published_model"]]
    assert mine and mine[0]["removable"], j["published_model"]
    check_serving(ctx, d)


@case("the trainer has idle time, its caps and nothing of the daemon")
def _(ctx):
    with start(ctx, "--job-memory", "3G", "--job-threads", "3", "--log-level", "debug") as d:
        j = wait(d, add(d, "probe"), "published")
        how = json.loads(read(os.path.join(folder(d, j["id"]), "probe.json")))
        assert how["nice"] == 19 and how["policy"] == 3, how  # SCHED_BATCH
        assert how["oom"] == 1000 and how["group"] and how["core"] == 0, how
        assert how["data"] == 3 << 30 and how["fds"] == [0, 1, 2, 3], how
        for name in how["env"]:
            assert re.match(r"(PATH|LANG|LC_CTYPE|HOME|TMPDIR|OMP_\w+|OPENBLAS_NUM_THREADS|"
                            r"LD_LIBRARY_PATH|CUDA_\w+|\w+SAN_OPTIONS)$", name), name
        assert how["people"] == {"ada": ["1.jpg", "same.jpg"], "bob": ["1.jpg"]}, how
        own = os.path.realpath(folder(d, j["id"]))
        assert how["cwd"] == own and how["args"]["data_dir"] == os.path.join(root(ctx), "people")
        for name in ("logs_base_dir", "models_base_dir", "output"):
            assert how["args"][name].startswith(own + "/"), how["args"]
        assert how["args"]["device"] == "cpu" and "device_plugin" not in how["args"], how["args"]
        assert how["args"]["threads"] == "3" and how["args"]["memory_mib"] == "768", how["args"]
        # A word: an id may hold the letters.
        assert not re.search(r"\bada\b", d.text()), "a person's name is in the log"


@case("a memory cap ends the job, not the daemon")
def _(ctx):
    with start(ctx, "--job-memory", "1G") as d:
        j = wait(d, add(d, "memory"), "failed")
        assert "MemoryError" in j["text"], j["text"]
        check_serving(ctx, d)


@case("one job at a time, the others in order, no more than fit")
def _(ctx):
    with start(ctx, "--jobs-waiting", "2") as d:
        first = add(d, "hang")
        hangs(d, first)
        second, third = add(d, "publish"), add(d, "refuse")
        expect(d.post("/admin/finetune", {"folder": "people"}), 503, "queue_full")
        assert [get(d, i)["before"] for i in (second, third)] == [0, 1]
        rows = d.get("/admin/jobs?limit=2").json
        assert [r["id"] for r in rows["jobs"]] == [third, second], rows
        rest = d.get("/admin/jobs?after=" + rows["next"]).json
        assert [r["id"] for r in rest["jobs"]] == [first] and rest["next"] is None, rest
        assert d.metric('facenetd_jobs{state="queued"}') == 2
        assert d.metric('facenetd_jobs{state="running"}') == 1
        expect(d.delete("/admin/jobs/" + first), 202, state="running", cancelling=True)
        assert wait(d, third, "refused")["text"] == "VAL fell from 0.8 to 0.7"
        assert get(d, second)["state"] == "published"
        assert get(d, first)["ended"] <= get(d, second)["started"]


@case("ended jobs over the number that is kept go, the oldest first")
def _(ctx):
    with start(ctx, "--jobs-kept", "2") as d:
        jobs = []
        for _ in range(4):
            jobs.append(add(d, "fail"))
            wait(d, jobs[-1], "failed")
        last = add(d, "fail")
        wait(d, last, "failed")
        d.wait_log(r"job=%s text=\"removed: jobs-kept" % jobs[1])
        expect(d.get("/admin/jobs/" + jobs[0]), 404, "job_not_found")
        assert not os.path.exists(folder(d, jobs[0]))
        assert get(d, jobs[3])["state"] == "failed"


# --- ends of all kinds -----------------------------------------------------

@case("how a trainer ends is how its job ends, and the daemon serves on")
def _(ctx):
    d = daemon(ctx)
    for way, state, text, resumable in (
            ("refuse", "refused", "VAL fell", False),
            ("fail", "failed", "one person only", False),
            ("mute", "failed", "only these words", False),
            ("liar", "failed", "left no model", False),
            ("segv", "killed", "signal 11", True),
            ("kill", "killed", "signal 9", False)):
        j = wait(d, add(d, way), *ENDED)
        assert (j["state"], j["resumable"]) == (state, resumable), (way, j)
        assert text in j["text"], (way, j["text"])
        assert (j["checkpoint_step"] == 5) == resumable, (way, j)
        if not resumable:
            expect(d.request("POST", "/admin/jobs/%s/resume" % j["id"]), 409, "conflict")
        check_serving(ctx, d)


@case("a trainer that is no program, and one that is not there")
def _(ctx):
    with Daemon(models(ctx), "--trainer", os.path.join(HERE, "fields.json"),
                "--train-root", root(ctx)) as d:
        expect(d.post("/admin/finetune", {"folder": "people"}), 500, "config")
    with Daemon(models(ctx), "--trainer", "/nowhere/facenetctl", "--train-root", root(ctx)) as d:
        a = expect(d.post("/admin/finetune", {"folder": "people"}), 500, "config")
        assert "/nowhere/facenetctl" in a.json["detail"]
    script = ctx.path("no-interpreter")
    with open(script, "w", encoding="utf-8") as f:
        f.write("#!/nowhere/sh\n")
    os.chmod(script, 0o700)
    with Daemon(models(ctx), "--trainer", script, "--train-root", root(ctx)) as d:
        j = wait(d, add(d, "publish"), "failed")
        assert "cannot be started" in j["text"], j["text"]


@case("lines and logs that are rubbish, and very many of them")
def _(ctx):
    d = daemon(ctx)
    j = wait(d, add(d, "flood"), "published")
    assert j["bad_lines"] > 5000, j["bad_lines"]
    assert 256 <= len(j["curve"]) <= 512 and j["curve"][0]["step"] == 1, len(j["curve"])
    told = j["evaluations"]
    assert len(told) == 64 and told[0]["when"] == "before", told
    assert len(j["log"].encode()) <= 2 * 8192 and j["log"].endswith("the last words\n"), j["log"]
    assert "\x1b" not in j["log"]
    assert j["checkpoint_step"] is None, "a checkpoint outside of the folder"
    size = sum(os.path.getsize(os.path.join(folder(d, j["id"]), n))
               for n in ("log.txt", "log.old.txt"))
    assert size <= 2 << 20, size


@case("what a trainer leaves running ends with it")
def _(ctx):
    d = daemon(ctx)
    job = add(d, "orphan")
    wait(d, job, "published")
    for entry in os.listdir("/proc"):
        if entry.isdigit() and alive(int(entry)):
            try:
                words = read("/proc/%s/cmdline" % entry)
            except OSError:
                continue
            assert job.encode() not in words, words


# --- cancelling, resuming, removing -----------------------------------------

@case("cancelled while it waits, runs, begins, is deaf, and when it is over")
def _(ctx):
    with start(ctx, "--job-stop-ms", "500") as d:
        running = add(d, "hang")
        hangs(d, running)
        waiting = add(d, "publish")
        expect(d.delete("/admin/jobs/" + waiting), 200, state="cancelled")
        expect(d.delete("/admin/jobs/" + running), 202)
        j = wait(d, running, "cancelled")
        assert j["resumable"] and j["checkpoint_step"] == 7, j
        assert "cancelled" in j["text"] and "checkpoint" in j["text"]
        assert get(d, waiting)["state"] == "cancelled"
        expect(d.delete("/admin/jobs/" + running), 409, "conflict")
        early = add(d, "early")
        hangs(d, early)
        expect(d.delete("/admin/jobs/" + early), 202)
        assert not wait(d, early, "cancelled")["resumable"]
        deaf = add(d, "deaf")
        hangs(d, deaf)
        pid = pid_of(d, deaf)
        expect(d.delete("/admin/jobs/" + deaf), 202)
        expect(d.delete("/admin/jobs/" + deaf), 202)
        j = wait(d, deaf, "cancelled")
        assert "was killed" in j["text"] and not alive(pid), j["text"]
        done = add(d, "publish")
        wait(d, done, "published")
        expect(d.delete("/admin/jobs/" + done), 409, "conflict")
        expect(d.delete("/admin/jobs/1-00000000"), 404, "job_not_found")


@case("cancelled at any moment after it was added")
def _(ctx):
    d = daemon(ctx)
    for _ in range(10):
        job = add(d, "hang")
        assert d.delete("/admin/jobs/" + job).status in (200, 202)
        j = wait(d, job, "cancelled")
        assert j["ended"] and not j["cancelling"], j
        assert not os.path.exists(os.path.join(folder(d, job), "data"))


@case("a job goes on from its checkpoint, once it has ended")
def _(ctx):
    d = daemon(ctx)
    job = add(d, "resume")
    hangs(d, job)
    expect(d.request("POST", "/admin/jobs/%s/resume" % job), 409, "conflict")
    os.kill(pid_of(d, job), signal.SIGKILL)
    j = wait(d, job, "killed")
    assert j["resumable"] and "signal 9" in j["text"]
    expect(d.request("POST", "/admin/jobs/%s/resume" % job), 202, resumed=1)
    j = wait(d, job, "published")
    assert j["text"] == "went on from step 5", j["text"]
    assert j["evaluations"][0]["when"] == "before"
    expect(d.request("POST", "/admin/jobs/%s/resume" % job), 409, "conflict")


@case("an ended job is removed with its files, no other")
def _(ctx):
    d = daemon(ctx)
    job = add(d, "hang")
    hangs(d, job)
    expect(d.delete("/admin/jobs/%s?purge=true" % job), 409, "conflict")
    expect(d.delete("/admin/jobs/%s?purge=yes" % job), 400, "bad_field")
    expect(d.delete("/admin/jobs/%s?purge=false" % job), 202)
    wait(d, job, "cancelled")
    expect(d.delete("/admin/jobs/%s?purge=true" % job), 200, deleted=job)
    assert not os.path.exists(folder(d, job))
    expect(d.get("/admin/jobs/" + job), 404, "job_not_found")
    expect(d.delete("/admin/jobs/%s?purge=true" % job), 404, "job_not_found")


@case("a job over its time is stopped with a checkpoint")
def _(ctx):
    with start(ctx, "--job-max-minutes", "0.02") as d:
        j = wait(d, add(d, "hang"), "stopped")
        assert "job-max-minutes" in j["text"] and j["resumable"], j


# --- the daemon's own end ----------------------------------------------------

@case("the daemon stops: its job with a checkpoint, the others wait for the next")
def _(ctx):
    data = ctx.path("jobs-stop")
    with start(ctx, data=data) as d:
        first = add(d, "hang")
        hangs(d, first)
        pid = pid_of(d, first)
        second = add(d, "publish")
        assert d.stop() == 0
        assert not alive(pid)
    with start(ctx, data=data) as d:
        j = get(d, first)
        assert j["state"] == "stopped" and j["resumable"], j
        assert "the daemon was stopped" in j["text"]
        wait(d, second, "published")


@case("a deaf job does not keep the daemon from stopping")
def _(ctx):
    with start(ctx, "--drain-ms", "0") as d:
        job = add(d, "deaf")
        hangs(d, job)
        pid = pid_of(d, job)
        assert d.stop() == 0
        assert not alive(pid)


@case("kill -9 of the daemon: its job ends, the next daemon tells of it")
def _(ctx):
    for way in ("hang", "deaf"):
        data = ctx.path("jobs-kill-" + way)
        with start(ctx, data=data) as d:
            first = add(d, way)
            hangs(d, first)
            pid = pid_of(d, first)
            second = add(d, "publish")
            d.kill()
        if way == "hang":
            wait_gone(pid)
        with start(ctx, "--job-stop-ms", "200", data=data) as d:
            d.wait_log(r"job=%s state=killed .*the daemon" % first)
            j = get(d, first)
            assert j["state"] == "killed" and "the daemon ended" in j["text"], j
            # It was told to stop, and left a checkpoint that nobody heard of.
            assert (j["checkpoint_step"] == 7) == j["resumable"] == (way == "hang"), j
            # Nothing begins before the process of the last daemon is gone.
            wait(d, second, "published")
            assert not alive(pid)


@case("damaged records and folders without one do not keep it from starting")
def _(ctx):
    data = ctx.path("jobs-damaged")
    with start(ctx, data=data) as d:
        good = add(d, "publish")
        wait(d, good, "published")
        bad = add(d, "fail")
        wait(d, bad, "failed")
    where = os.path.join(data, "jobs")
    for text in ("", "{", "[]", '{"state": "queued"}', '{"id": 5, "number": 1, "state": "x"}'):
        with open(os.path.join(where, bad, "record.json"), "w", encoding="utf-8") as f:
            f.write(text)
        os.makedirs(os.path.join(where, "77-0123abcd", "run"))
        os.makedirs(os.path.join(where, "not-a-job"), exist_ok=True)
        with start(ctx, data=data) as d:
            assert get(d, good)["state"] == "published"
            expect(d.get("/admin/jobs/" + bad), 404, "job_not_found")
            assert os.path.exists(os.path.join(where, bad, "record.json"))
            assert not os.path.exists(os.path.join(where, "77-0123abcd"))
            assert os.path.exists(os.path.join(where, "not-a-job"))
            after = add(d, "fail")
            wait(d, after, "failed")


# --- requests that are wrong -------------------------------------------------

@case("fields, folders and arguments that are refused, with the reason")
def _(ctx):
    d = daemon(ctx)
    for body, code, *says in (
            ({}, "bad_field", "gallery", "folder"),
            ({"folder": "people", "gallery": "default"}, "bad_field", "one of"),
            ({"folder": "nothing"}, "bad_field", "folder 'nothing'", "No such file"),
            ({"folder": "/etc"}, "bad_field", "relative", "train-root"),
            ({"folder": "../outside"}, "bad_field", '".."'),
            ({"folder": "people/../../outside"}, "bad_field", '".."'),
            ({"folder": "out"}, "bad_field", "link that leads out"),
            ({"folder": "out/.."}, "bad_field", '".."'),
            ({"folder": "pairs.txt"}, "bad_field", "no folder"),
            ({"folder": "people:people"}, "bad_field", "':'"),
            ({"folder": "a\u0000b"}, "bad_json"),
            ({"folder": ""}, "bad_field", "folder"),
            ({"folder": 5}, "bad_field", "folder"),
            ({"folder": "x" * 300}, "bad_field", "255"),
            ({"folder": "people", "holdout_folder": "out"}, "bad_field", "holdout_folder"),
            ({"folder": "people", "lfw_dir": "people"}, "bad_field", "lfw_pairs"),
            ({"folder": "people", "lfw_dir": "people", "lfw_pairs": "people"}, "bad_field",
             "lfw_pairs", "no file"),
            ({"folder": "people", "model": "../embedder"}, "bad_field", "model"),
            ({"folder": "people", "model": "none"}, "model_not_found", "none"),
            ({"folder": "people", "teacher": "none"}, "model_not_found", "teacher"),
            ({"folder": "people", "model": "embedder", "arguments": {"arch": "nn4"}}, "bad_field",
             "arch"),
            ({"folder": "people", "color": 1}, "bad_field", "color"),
            ({"folder": "people", "arguments": []}, "bad_field", "arguments"),
            ({"folder": "people", "arguments": {"nothing": 1}}, "bad_field", "nothing"),
            ({"folder": "people", "arguments": {"data_dir": "/etc"}}, "bad_field", "data_dir"),
            ({"folder": "people", "arguments": {"output": "/tmp/x"}}, "bad_field", "output"),
            ({"folder": "people", "arguments": {"resume": "/tmp"}}, "bad_field", "resume"),
            ({"folder": "people", "arguments": {"learning_rate_schedule_file": "/etc/passwd"}},
             "bad_field", "learning_rate_schedule_file"),
            ({"folder": "people", "arguments": {"progress_fd": 1}}, "bad_field", "progress_fd"),
            ({"folder": "people", "arguments": {"threads": 64}}, "bad_field", "threads"),
            ({"folder": "people", "arguments": {"batch_size": 10}}, "bad_field", "multiple of 3"),
            ({"folder": "people", "arguments": {"learning_rate": "nan"}}, "bad_field",
             "learning_rate"),
            ({"folder": "people", "arguments": {"learning_rate": -1}}, "bad_field",
             "learning_rate"),
            ({"folder": "people", "arguments": {"optimizer": "SGD"}}, "bad_field", "optimizer",
             "ADAM"),
            ({"folder": "people", "arguments": {"alpha": [0.2]}}, "bad_field", "alpha"),
            ({"folder": "people", "arguments": {"alpha": 1, "alpha ": 1}}, "bad_field", "alpha "),
            ({"folder": "people", "arguments": {"weight_decay": 0, "weight-decay": 0}},
             "bad_field", "twice"),
            ({"gallery": "nobody"}, "gallery_not_found", "nobody"),
            ({"gallery": "../x"}, "bad_field", "gallery")):
        a = d.post("/admin/finetune", body)
        expect(a, 404 if code.endswith("not_found") else 400, code)
        for word in says:
            assert word in a.json["detail"], (body, word, a.json["detail"])
    kind = {"Content-Type": "application/json"}
    expect(d.request("POST", "/admin/finetune", b"[1]", kind), 400, "bad_json")
    expect(d.request("POST", "/admin/finetune", b"{", kind), 400, "bad_json")
    expect(d.request("POST", "/admin/finetune", b" " * 70000, kind), 413, "too_large")
    expect(d.post("/admin/finetune", [("folder", "people")]), 415, "unsupported_media_type")
    expect(d.get("/admin/jobs?after=x"), 400, "bad_field")
    expect(d.get("/admin/jobs?limit=0"), 400, "bad_field")
    expect(d.get("/admin/jobs/..%2f"), 400)
    with Daemon(models(ctx), "--trainer", FAKE) as other:
        a = expect(other.post("/admin/finetune", {"folder": "people"}), 400, "bad_field")
        assert "train-root" in a.json["detail"]


@case("the limits of jobs are told")
def _(ctx):
    with start(ctx, "--jobs-kept", "3", "--job-memory", "5G", "--job-max-minutes", "1.5") as d:
        limits = d.get("/info").json["limits"]
        for name, value in (("jobs_kept", 3), ("job_memory", 5 << 30), ("job_max_minutes", 1.5),
                            ("jobs_waiting", 8), ("job_stop_ms", 120000)):
            assert limits[name] == value, (name, limits)


@case("a link inside a folder that leads out of the root ends the job")
def _(ctx):
    d = daemon(ctx)
    j = wait(d, add(d, "publish", folder="linked"), "failed")
    assert "linked/ada/2.jpg" in j["text"] and "leads out" in j["text"], j["text"]
    wait(d, add(d, "publish", folder="inside"), "published")


@case("jobs are an admin's")
def _(ctx):
    keys = ctx.path("jobs-keys")
    made = {}
    for right in ("verify,enroll,embed", "admin"):
        name = right[:6].rstrip(",")
        made[right] = run(CTL, "keys", "add", name, "--rights", right, "-f", keys).stdout.split()[-1]
    with start(ctx, "--keys-file", keys) as d:
        for right, status in (("verify,enroll,embed", 403), ("admin", 202)):
            h = {"Authorization": "Bearer " + made[right]}
            a = d.post("/admin/finetune", {"folder": "people"}, h)
            assert a.status == status, a
            for method, path in (("GET", "/admin/jobs"), ("GET", "/admin/jobs/1-00000000"),
                                 ("DELETE", "/admin/jobs/1-00000000"),
                                 ("POST", "/admin/jobs/1-00000000/resume")):
                a = d.request(method, path, headers=h)
                assert (a.status == 403) == (status == 403), (method, path, a)
                assert d.request(method, path).status == 401


@case("answers are as quick and right while jobs crash")
def _(ctx):
    with start(ctx) as d:
        stop, wrong = threading.Event(), []

        def ask():
            while not stop.is_set():
                try:
                    check_serving(ctx, d)
                except Exception as e:  # told by the case
                    wrong.append(e)
                    return
        asker = threading.Thread(target=ask)
        asker.start()
        try:
            for way in ("segv", "kill", "flood", "mute", "segv"):
                wait(d, add(d, way), *ENDED)
        finally:
            stop.set()
            asker.join()
        assert not wrong, wrong


# --- galleries: real photos, since only faces have crops ---------------------

def enrolled(ctx, d, n):
    """n people of a gallery, one face each."""
    for who in cases_faces.SINGLES[:n]:
        expect(d.post("/enroll", [("subject", who), ("image", cases_faces.photo(who))]), 201)


def start_real(ctx, *args, data=None):
    return Daemon(cases_faces.models(ctx), "--trainer", FAKE, *args, data=data)


@case("a gallery is trained on through files that are gone afterwards")
def _(ctx):
    with start_real(ctx) as d:
        enrolled(ctx, d, 1)
        j = wait(d, add(d, "probe", folder=None), "failed")
        assert "1 people" in j["text"], j["text"]
        assert not os.path.exists(os.path.join(folder(d, j["id"]), "data"))
        enrolled(ctx, d, 3)
        job = add(d, "probe", folder=None)
        wait(d, job, "published")
        seen = json.loads(read(os.path.join(folder(d, job), "probe.json")))
        assert sorted(seen["people"]) == sorted(cases_faces.SINGLES), seen["people"]
        assert all(re.fullmatch(r"\d+\.jpg", n) for p in seen["people"].values() for n in p)
        assert seen["modes"] == ["0o600"] and os.path.basename(seen["args"]["data_dir"]) == "data"
        assert not os.path.exists(seen["args"]["data_dir"]), "crops are left"
        for who in cases_faces.SINGLES:
            assert who not in d.text(), "a person's id is in the log"


@case("encrypted crops are in memory alone, and gone afterwards")
def _(ctx):
    key = ctx.path("crop-key")
    with open(key, "w", encoding="utf-8") as f:
        f.write("5a" * 32)
    os.chmod(key, 0o600)
    data = ctx.path("jobs-sealed")
    with start_real(ctx, "--crop-key-file", key, data=data) as d:
        enrolled(ctx, d, 2)
        job = add(d, "probe", folder=None)
        wait(d, job, "published")
        seen = json.loads(read(os.path.join(folder(d, job), "probe.json")))
        where = seen["args"]["data_dir"]
        assert len(seen["people"]) == 2 and not where.startswith(os.path.realpath(data)), where
        assert not os.path.exists(where), "crops are left"
        job = add(d, "deaf", folder=None)
        hangs(d, job)
        with open(os.path.join(folder(d, job), "record.json"), encoding="utf-8") as f:
            where = json.load(f)["data_dir"]
        assert len(os.listdir(where)) == 2
        d.kill()
    with start_real(ctx, "--crop-key-file", key, "--job-stop-ms", "0", data=data) as d:
        assert get(d, job)["state"] == "killed"
        end = time.monotonic() + PATIENCE
        while os.path.exists(where):
            assert time.monotonic() < end, "crops are left"
            time.sleep(0.02)


@case("facenetctl train on a gallery's own crops, from request to published model")
def _(ctx):
    faces = os.path.join(DATA, "faces", "cfp-train")
    if not os.path.isdir(faces):
        raise Skip("no photos: set FACENETD_DATA")
    # Checked builds reserve more address space than any limit leaves them.
    limit = ("--job-memory", "0") if SLOW > 1 else ()
    card = ("--device", "cpu", "--train-device", "auto", "--device-plugin", PLUGIN)
    with Daemon(cases_faces.models(ctx), "--trainer", CTL, *limit, *card) as d:
        for who in sorted(os.listdir(faces))[:6]:
            photos = [n for n in sorted(os.listdir(os.path.join(faces, who))) if "frontal" in n]
            expect(d.post("/enroll", [("subject", who)] + [
                ("image", read(os.path.join(faces, who, n))) for n in photos[:4]]), 201)
        job = expect(d.post("/admin/finetune", {"gallery": "default", "arguments": {
            "people_per_batch": 3, "images_per_person": 4, "batch_size": 12, "epoch_size": 1,
            "max_nrof_epochs": 1, "learning_rate": 1e-6, "holdout": 0.5, "force": True,
            "precision": "f32"}}), 202).json["id"]
        j = wait(d, job, "published", patience=PATIENCE * 5)
        assert j["device"] == 'cuda, Fake "card", f32', j["device"]  # tests/fake_gpu.c
        assert j["bad_lines"] == 0 and j["progress"]["step"] == 1 and j["curve"], j
        assert {e["when"] for e in j["evaluations"]} >= {"before", "after"}, j["evaluations"]
        model = [m for m in d.get("/admin/models").json["models"]
                 if m["id"] == j["published_model"]][0]
        assert model["parent"] == d.get("/info").json["model"]["id"], model
        assert model["thresholds"], model
        # Killed in the middle, it goes on; told to stop, it leaves a checkpoint.
        job = expect(d.post("/admin/finetune", {"gallery": "default", "arguments": {
            "people_per_batch": 3, "images_per_person": 4, "batch_size": 12,
            "epoch_size": 1, "max_nrof_epochs": 2000, "learning_rate": 1e-6, "holdout": 0.5,
            "force": True, "precision": "f32"}}), 202).json["id"]
        wait(d, job, "running", until=lambda j: j["checkpoint_step"], patience=PATIENCE * 5)
        os.kill(pid_of(d, job), signal.SIGKILL)
        j = wait(d, job, "killed")
        at = j["checkpoint_step"]
        expect(d.request("POST", "/admin/jobs/%s/resume" % job), 202)
        j = wait(d, job, "running", until=lambda j: j["checkpoint_step"] > at,
                 patience=PATIENCE * 5)
        expect(d.delete("/admin/jobs/" + job), 202)
        j = wait(d, job, "cancelled", patience=PATIENCE * 5)
        assert j["resumable"] and j["checkpoint_step"] > at, j
        assert j["bad_lines"] == 0, j
