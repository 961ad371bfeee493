"""Cases of finding faces on a card, played by tests/fake_gpu.c, with the models
and pictures of models/: whatever the card does, every request gets the
processor's answer."""

import os
import re
import threading
import time

from cases_card import USUAL, Card, device, down
from cases_demo import MODELS, NETWORKS, picture
from cases_models import wait_until
from client import PATIENCE, Daemon, Skip, expect

CASES = []
# The width of what each network looks at.
STAGES = {"P-Net": 160, "R-Net": 24, "O-Net": 48}
SEEN = ("ada-1", "ben-1", "chen-1", "dov-1", "ada-2", "ben-2", "chen-2", "group")
FINDS = {"--device-detect": "on", "--device-batch-max": "1", "--workers": "12"}


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def daemon(ctx, card, **more):
    for name in NETWORKS:
        if not os.path.exists(os.path.join(MODELS, name + ".onnx")):
            raise Skip("no models/%s.onnx" % name)
    options = {**USUAL, **FINDS, "--device-plugin": card.plugin,
               **{"--" + key.replace("_", "-"): value for key, value in more.items()}}
    return Daemon(MODELS, *[word for pair in options.items() for word in pair], env=card.env)


def look(d, name):
    return expect(d.post("/detect", picture(name)), 200).json["faces"]


def expected(ctx):
    """What the processor finds, and its distance of two pictures."""
    def make():
        with Daemon(MODELS, "--precision", "f32") as d:
            return {name: look(d, name) for name in SEEN}, verify(d)
    return ctx.once("detection-expected", make)


def verify(d):
    a = expect(d.post("/verify", [("image1", picture("ada-1")), ("image2", picture("ada-2"))]), 200)
    return a.json["distance"]


def numbers(face):
    return ([face["detection_score"]] + [float(v) for v in face["box"].values()] +
            [float(v) for point in face["landmarks"] for v in point])


def same(ctx, name, faces):
    want = expected(ctx)[0][name]
    assert len(faces) == len(want), (name, len(faces), len(want))
    for a, b in zip(faces, want):
        worst = max(abs(x - y) for x, y in zip(numbers(a), numbers(b)))
        assert worst <= 0.2, (name, worst, a, b)


def detection(d):
    return device(d)["detection"]


def together(ctx, d, names=SEEN, between=lambda: None):
    """Requests at once, all answered well; between is called while they run."""
    answers = {}

    def ask(name):
        answers[name] = d.post("/detect", picture(name))
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for t in threads:
        t.start()
    try:
        between()
    finally:
        for t in threads:
            t.join(2 * PATIENCE)
    assert sorted(answers) == sorted(names), answers
    for name, a in answers.items():
        same(ctx, name, expect(a, 200).json["faces"])


@case("the card finds the faces that the processor finds")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card) as d:
        one = detection(d)
        assert (one["backend"], one["why"], one["failovers"]) == ("cuda", None, 0), one
        assert card.seen().get("loaded") == 4, card.seen()
        for name in SEEN:
            same(ctx, name, look(d, name))
        assert abs(verify(d) - expected(ctx)[1]) < 1e-3
        together(ctx, d)
        one = detection(d)
        assert one["batches"] > 0 and one["inputs"] > one["batches"], one
        assert one["failovers"] == 0, one
        text = d.get("/metrics").body.decode()
        for line in ("facenetd_detection_on_device 1", "facenetd_detection_failovers_total 0"):
            assert "\n" + line + "\n" in text, line
        assert d.metric("facenetd_detection_batches_total") == one["batches"]
        assert re.search(r"event=device model=\w+ precision=f32 slots=1 ", d.text())


@case("photos that are looked at together share batches")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card) as d:
        before = detection(d)
        card.tell("hang only=%d" % STAGES["P-Net"])

        def let_go():
            wait_until(lambda: d.metric("facenetd_in_flight") > len(SEEN))
            time.sleep(0.5)  # until all of them wait, but the first
            card.tell("")
        together(ctx, d, between=let_go)
        after = detection(d)
        batches = after["batches"] - before["batches"]
        inputs = after["inputs"] - before["inputs"]
        # P-Net ran a batch or two that came first, and one of the others;
        # alone every photo has three.
        assert batches < 3 * len(SEEN) and inputs > 3 * len(SEEN), (before, after)
        assert after["failovers"] == 0, after


@case("a card that is lost while faces are found: all are answered; it comes back")
def _(ctx):
    for name, side in STAGES.items():
        card = Card(ctx)
        with daemon(ctx, card) as d:
            card.tell("lost only=%d" % side)
            together(ctx, d)
            one = down(d)
            assert one["state"] == "down" and "fell off the bus" in one["why"], (name, one)
            found = detection(d)
            assert found["backend"] == "cpu" and found["failovers"] > 0, (name, found)
            assert "fell off the bus" in found["why"], (name, found)
            same(ctx, "group", look(d, "group"))
            card.tell("")
            wait_until(lambda: detection(d)["backend"] == "cuda")
            assert d.metric("facenetd_device_serves") == 1  # was loaded before
            failovers = detection(d)["failovers"]
            together(ctx, d)
            assert detection(d)["failovers"] == failovers


@case("a card that hangs while faces are found is left alone; all are answered")
def _(ctx):
    for name, side in STAGES.items():
        card = Card(ctx)
        with daemon(ctx, card, device_timeout_ms="1500") as d:
            card.tell("hang only=%d" % side)
            together(ctx, d)
            one = down(d)
            assert one["state"] == "hung" and "did not answer" in one["why"], (name, one)
            assert detection(d)["backend"] == "cpu" and detection(d)["failovers"] > 0
            together(ctx, d)
            if name == "O-Net":
                card.tell("")  # what hung returns, to nobody
                together(ctx, d)


@case("numbers that are none are computed again where faces are found")
def _(ctx):
    for side in STAGES.values():
        card = Card(ctx)
        with daemon(ctx, card) as d:
            card.tell("nan only=%d" % side)
            together(ctx, d)
            one = detection(d)
            assert one["backend"] == "cuda" and one["failovers"] > 0, one
            assert device(d)["card"]["state"] == "up"


@case("networks that the card refuses are the processor's until it takes them")
def _(ctx):
    for words, why in (("plans=1", "no memory on the card for 4 faces"),
                       ("wrong only=24", "check does not hold on the card in f32")):
        card = Card(ctx, words)
        with daemon(ctx, card) as d:
            one = detection(d)
            assert one["backend"] == "cpu" and why in one["why"], one
            assert d.metric("facenetd_device_serves") == 1  # the embedder
            together(ctx, d)
            card.tell("")
            wait_until(lambda: detection(d)["backend"] == "cuda")
            together(ctx, d)
            assert detection(d)["failovers"] == 0


@case("where it is not wanted, or there is no card, the processor finds faces")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card, device_detect="off") as d:
        assert device(d)["backend"] == "cuda" and card.seen().get("loaded") == 1
        assert detection(d) == {"backend": "cpu", "why": "the setting device-detect is off",
                                "batches": 0, "inputs": 0, "failovers": 0}
        same(ctx, "group", look(d, "group"))
    card = Card(ctx, "absent")
    with daemon(ctx, card) as d:
        assert detection(d)["backend"] == "cpu"
        same(ctx, "group", look(d, "group"))
        card.tell("")
        wait_until(lambda: detection(d)["backend"] == "cuda")
        same(ctx, "group", look(d, "group"))
