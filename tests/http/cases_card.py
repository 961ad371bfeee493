"""Cases of a card beside the processor, played by tests/fake_gpu.c: it is
there or not, fails, hangs, comes back. Whatever it does, every request gets
the processor's answer."""

import contextlib
import os
import re
import signal
import threading

from cases_models import (SIGHT, activate, fill, found, network, picture,
                          seeing, upload, wait_state, wait_until)
from client import BUILD, DAEMON, PATIENCE, Daemon, expect, run

CASES = []
PLUGIN = os.path.join(BUILD, "tests", "fake_gpu.so")
# Few batch sizes, since every one is loaded and checked; embedding alone
# (cases_detection.py has the rest); equal arithmetic; and a card that is only
# slow must not seem to hang.
USUAL = {"--device": "cuda", "--device-batch-max": "2", "--device-detect": "off",
         "--precision": "f32",
         "--device-timeout-ms": "60000", "--deadline-ms": "120000"}


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


class Card:
    """What the card is told, and what it tells."""

    plugin = PLUGIN

    def __init__(self, ctx, words=""):
        ctx.n_cards = getattr(ctx, "n_cards", 0) + 1
        self.path = ctx.path("card-%d" % ctx.n_cards)
        self.env = {"FACENETD_FAKE_GPU": self.path}
        self.tell(words)

    def tell(self, words):
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write(words)
        os.rename(self.path + ".new", self.path)

    def seen(self):
        try:
            with open(self.path + ".seen", encoding="ascii") as f:
                words = f.read().split()
        except FileNotFoundError:
            words = []
        return dict(zip(words[::2], map(int, words[1::2])))

    def daemon(self, ctx, *args, **more):
        return Daemon(seeing(ctx), *SIGHT, *usual(*args), "--device-plugin", PLUGIN,
                      *args, env=self.env, **more)


def usual(*args):
    """The usual settings but those that args give."""
    return [word for key, value in USUAL.items() if key not in args for word in (key, value)]


def embed(d, seed):
    a = expect(d.post("/embed", [("image", picture(seed))]), 200).json
    return a["faces"][0]["embedding"]


def expected(ctx):
    """The processor's embeddings of pictures 0 to 7."""
    def make():
        with Daemon(seeing(ctx), *SIGHT, "--precision", "f32") as d:
            return [embed(d, seed) for seed in range(8)]
    return ctx.once("card-expected", make)


def same(got, want):
    worst = max(abs(a - b) for a, b in zip(got, want))
    assert worst < 1e-4, worst


def device(d):
    return d.get("/info").json["device"]


def serves(d):
    return d.metric("facenetd_device_serves")


@contextlib.contextmanager
def in_flight(ctx, d, n=8):
    """Requests that are sent before the body and answered, well, after it."""
    answers, want = {}, expected(ctx)

    def ask(seed):
        answers[seed] = d.post("/embed", [("image", picture(seed))])
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(n)]
    for t in threads:
        t.start()
    try:
        yield
    finally:
        for t in threads:
            t.join(2 * PATIENCE)
    assert sorted(answers) == list(range(n)), answers
    for seed, a in answers.items():
        same(expect(a, 200).json["faces"][0]["embedding"], want[seed])


def down(d):
    """Until the card is lost; what /info says of it."""
    return wait_until(lambda: (lambda c: c if c["state"] != "up" else None)(device(d)["card"]))


# --- at the start -----------------------------------------------------------------

@case("the card runs the model, two batches at once, and its answers are the processor's")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx) as d:
        assert 'name="Fake \\"card\\""' in d.wait_log(r"event=device card=up backend=cuda")
        assert " device=cuda " in d.wait_log(r"event=ready")
        dev = device(d)
        assert (dev["backend"], dev["name"], dev["setting"]) == ("cuda", 'Fake "card"', "cuda")
        assert dev["precision"] == "f32", dev
        one = dev["card"]
        assert one["state"] == "up" and one["why"] is None and one["opened"] == 1, one
        assert one["memory_bytes"] == 1 << 30 and one["memory_used_bytes"] > 0, one
        card.tell("hang")
        with in_flight(ctx, d):
            wait_until(lambda: card.seen().get("most") == 2)
            card.tell("")
        text = d.get("/metrics").body.decode()
        for line in ("facenetd_device_up 1", "facenetd_device_serves 1",
                     "facenetd_device_opened_total 1", "facenetd_device_lost_total 0",
                     "facenetd_device_failovers_total 0",
                     "facenetd_device_memory_bytes %d" % (1 << 30)):
            assert "\n" + line + "\n" in text, line
        assert re.search(r'facenetd_build_info\{.*device="cuda",precision="f32"\} 1', text)
        assert r'facenetd_device_info{device="cuda",name="Fake \"card\"",state="up",why=""} 1' \
            in text, text


@case("why there is no card: in the log, in /info and in /metrics")
def _(ctx):
    rows = (({}, "absent", "auto", "none", "there is no card 0"),
            ({"FACENETD_FAKE_ABI": "3"}, "", "auto", "none", "another version"),
            ({"FACENETD_FAKE_LACKS": "1"}, "", "cuda", "none", "has no forward"),
            ({}, "absent", "cuda:5", "down", "there is no card 5"))
    for env, words, setting, state, why in rows:
        card = Card(ctx, words)
        card.env.update(env)
        with card.daemon(ctx, "--device", setting) as d:
            assert why in d.wait_log(r"event=device card=%s " % state)
            dev = device(d)
            assert dev["backend"] == "cpu" and dev["setting"] == setting, dev
            assert dev["card"]["state"] == state and why in dev["card"]["why"], dev
            text = d.get("/metrics").body.decode()
            assert re.search(r'facenetd_device_info\{.*state="%s",why=".*%s' % (state, why), text)
            same(embed(d, 0), expected(ctx)[0])


@case("no plugin, or none of ours, is no card")
def _(ctx):
    not_ours = ctx.path("not-ours.so")
    with open(not_ours, "w", encoding="ascii") as f:
        f.write("text")
    for path, why in (("/nonexistent/plugin.so", "No such file"), (not_ours, "not-ours.so"),
                      (ctx.dir, "is no file"), ("plugin.so", "not an absolute path")):
        with Daemon(seeing(ctx), *SIGHT, "--device", "auto", "--device-plugin", path) as d:
            assert why in d.wait_log(r"event=device card=none ")
            assert why in device(d)["card"]["why"]


@case("settings of devices that cannot be")
def _(ctx):
    for args, why in ((("--device", "gpu"), "device is auto, cpu, cuda or cuda:N"),
                      (("--device", "cuda:"), "device is auto"),
                      (("--device", "cuda:1x"), "device is auto"),
                      (("--device", "cpu", "--device-required"), "device-required"),
                      (("--train-device", "gpu"), "train-device is auto, cpu"),
                      (("--device", "cpu", "--precision", "f16"), "precision f16"),
                      (("--device", "cpu", "--precision", "tf32"), "precision tf32")):
        p = run(DAEMON, "--listen", "127.0.0.1:0", "--data-dir", ctx.path("no-data"),
                "--models", seeing(ctx), *args, ok=False)
        assert p.returncode == 78 and why in p.stderr, (args, p.returncode, p.stderr)


@case("a required card that is not there, or does not take the model, is exit 69")
def _(ctx):
    for words, why in (("absent", "there is no card 0"), ("memory", "no memory on the card"),
                       ("wrong", "check does not hold on the card in f32")):
        card = Card(ctx, words)
        d = card.daemon(ctx, "--device-required", ready=False)
        assert d.process.wait(PATIENCE) == 69, d.text()
        d.kill()
        assert "device-required: " in d.text() and why in d.text(), d.text()


@case("a model that the card refuses is the processor's, until the card takes it")
def _(ctx):
    for words, why in (("memory", "no memory on the card"),
                       ("plans=1", "no memory on the card for 2 faces"),
                       ("wrong", "check does not hold")):
        card = Card(ctx, words)
        with card.daemon(ctx) as d:
            dev = device(d)
            assert dev["backend"] == "cpu" and dev["card"]["state"] == "up", dev
            assert why in dev["card"]["why"], dev
            assert d.metric("facenetd_device_up") == 1 and serves(d) == 0
            same(embed(d, 1), expected(ctx)[1])
            card.tell("")
            wait_until(lambda: serves(d) == 1)
            assert device(d)["card"]["why"] is None
            same(embed(d, 1), expected(ctx)[1])
            assert d.metric("facenetd_device_failovers_total") == 0


@case("the card's arithmetic: what it is quick in, or what is asked for")
def _(ctx):
    card = Card(ctx, "f16")
    with card.daemon(ctx, "--precision", "auto") as d:
        assert device(d)["precision"] == "f16", device(d)
        assert " precision=f16 " in d.wait_log(r"event=ready")
        card.tell("f16 absent lost")  # the processor has no f16
        same(embed(d, 2), embed(d, 2))
        assert device(d)["precision"] in ("f32", "bf16")
    card = Card(ctx)
    with card.daemon(ctx, "--precision", "tf32") as d:
        dev = device(d)
        assert dev["backend"] == "cpu" and "tf32" in dev["card"]["why"], dev
        assert dev["precision"] == "f32", dev
        same(embed(d, 2), expected(ctx)[2])


# --- while requests are served -----------------------------------------------------

@case("a card is lost under requests: all are answered; it comes back")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx) as d:
        for turn in (1, 2):
            card.tell("hang")
            with in_flight(ctx, d):
                wait_until(lambda: card.seen().get("most") == 2)
                card.tell("lost absent" if turn == 1 else "lost")
            one = down(d)
            assert one["state"] == "down" and one["lost"] == turn, one
            assert one["retry_s"] >= 1 and one["failovers"] >= turn, one
            if turn == 1:  # and was tried again
                wait_until(lambda: "no card" in device(d)["card"]["why"])
            assert device(d)["backend"] == "cpu" and serves(d) == 0
            assert d.metric("facenetd_device_lost_total") == turn
            same(embed(d, 3), expected(ctx)[3])
            card.tell("")
            wait_until(lambda: serves(d) == 1)
            same(embed(d, 3), expected(ctx)[3])
            assert card.seen().get("opened") == 1 + turn, card.seen()
            assert d.metric("facenetd_device_opened_total") == 1 + turn
        assert "fell off the bus" in d.wait_log(r"event=device card=down ")


@case("a card that opens and fails again is tried ever later")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx) as d:
        card.tell("lost")
        same(embed(d, 4), expected(ctx)[4])
        for seconds in (1, 2):
            line = d.wait_log(r"event=device card=down retry_s=%d " % seconds)
            assert "fell off the bus" in line, line
        same(embed(d, 5), expected(ctx)[5])


@case("a card that hangs is left alone; its requests are answered")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx, "--device-timeout-ms", "2000") as d:
        card.tell("hang")
        with in_flight(ctx, d):
            pass
        one = down(d)
        assert one["state"] == "hung" and "did not answer within 2000 ms" in one["why"], one
        assert d.metric("facenetd_device_up") == 0
        card.tell("")  # what hung returns, to nobody
        for seed in range(4):
            same(embed(d, seed), expected(ctx)[seed])
        fill(d, 8)
        new = upload(d, network(ctx, 100))["id"]
        activate(d, new)
        wait_state(d, new)
        found(d, (3,), new)
        assert device(d)["card"]["state"] == "hung" and card.seen().get("opened") == 1


@case("a daemon ends while its card hangs, in a run or while it loads")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx, "--device-timeout-ms", "1000") as d:
        card.tell("hang")
        same(embed(d, 0), expected(ctx)[0])
        assert down(d)["state"] == "hung"
    card = Card(ctx, "hang-load")
    with card.daemon(ctx, "--device-timeout-ms", "20") as d:
        dev = device(d)
        assert dev["backend"] == "cpu" and "takes longer than" in dev["card"]["why"], dev
        same(embed(d, 0), expected(ctx)[0])


@case("numbers that are none are computed again; the card stays")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx) as d:
        card.tell("nan")
        same(embed(d, 6), expected(ctx)[6])
        assert d.metric("facenetd_device_failovers_total") == 1
        assert device(d)["card"]["state"] == "up" and serves(d) == 1


@case("a required card that is lost: requests are answered, then exit 71")
def _(ctx):
    card = Card(ctx)
    d = card.daemon(ctx, "--device-required")
    try:
        card.tell("hang")
        with in_flight(ctx, d):
            wait_until(lambda: card.seen().get("most") == 2)
            card.tell("lost")
        assert d.process.wait(PATIENCE) == 71, d.text()
        d.reader.join(PATIENCE)
        assert "the required card is lost" in d.text(), d.text()
    finally:
        d.kill()


# --- models ------------------------------------------------------------------------

@case("models switch on the card, without it, and it takes what serves when it is back")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx) as d:
        old = d.get("/info").json["model"]["id"]
        fill(d, 16)
        new = upload(d, network(ctx, 100))["id"]
        activate(d, new)
        wait_state(d, new)
        assert serves(d) == 1
        found(d, (3, 12), new)
        card.tell("lost absent")
        third = upload(d, network(ctx, 101))["id"]
        activate(d, third)
        wait_state(d, third)
        found(d, (3, 12), third)
        assert down(d)["state"] == "down" and serves(d) == 0
        card.tell("")
        wait_until(lambda: serves(d) == 1)
        found(d, (3, 12), third)
        activate(d, old)
        wait_state(d, old)
        found(d, (3, 12), old)
        assert serves(d) == 1


@case("a reload of the settings leaves the card as it is")
def _(ctx):
    card = Card(ctx)
    with card.daemon(ctx) as d:
        d.signal(signal.SIGHUP)
        d.wait_log(r"event=reload done=1")
        assert serves(d) == 1 and card.seen().get("opened") == 1
