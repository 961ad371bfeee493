"""Cases of a card: what the daemon says beside the processor, and what it does
without it. The card is that of FACENETD_PLUGIN, else tests/gpu/emulated.c's."""

import math
import os

from cases_demo import MODELS, NETWORKS, PEOPLE, picture
from client import BUILD, CARD, PATIENCE, SLOW, Daemon, Skip, expect

CASES = []
PLUGIN = CARD or os.path.join(BUILD, "tests", "gpu", "emulated.so")
# Plain loops: one face at a time.
EMULATED = () if CARD else ("--device-batch-max", "1", "--device-tune", "off")
# The least cosine of an embedding to the processor's in f32.
LEAST = {"f32": 0.99999, "tf32": 0.9999, "f16": 0.9999, "bf16": 0.995}
NO_CARD = {"CUDA_VISIBLE_DEVICES": "", "FACENETD_EMULATED": "absent"}


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def daemon(device, *args, **more):
    if SLOW > 1 and not CARD:
        raise Skip("an emulated card under a sanitiser")
    for name in NETWORKS:
        if not os.path.exists(os.path.join(MODELS, name + ".onnx")):
            raise Skip("no models/%s.onnx" % name)
    return Daemon(MODELS, "--device", device, "--device-plugin", PLUGIN, "--deadline-ms", "600000",
                  "--device-timeout-ms", "600000", *EMULATED, *args, **more)


def embed(d, name):
    faces = expect(d.post("/embed", picture(name)), 200).json["faces"]
    return faces[0]["embedding"]


def cosine(a, b):
    return (sum(x * y for x, y in zip(a, b)) /
            math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)))


def expected(ctx):
    def make():
        with daemon("cpu", "--precision", "f32") as d:
            return {who: embed(d, who + "-1") for who in PEOPLE}
    return ctx.once("device-expected", make)


def on_processor(d, why):
    """It serves all the same, and says why not on the card."""
    dev = d.get("/info").json["device"]
    assert dev["backend"] == "cpu" and why(dev), dev
    assert d.metric("facenetd_device_serves") == 0
    embed(d, "ada-1")


def ends(why, *args, **more):
    d = daemon("cuda", "--device-required", *args, ready=False, **more)
    try:
        assert d.process.wait(PATIENCE) == 69, d.text()
    finally:
        d.kill()
    assert "device-required: " in d.text() and why in d.text(), d.text()


def precision(name):
    @case("embeddings of photos in %s are the processor's" % name)
    def _(ctx):
        want = expected(ctx)
        with daemon("cuda", "--precision", name, "--device-detect", "off") as d:
            dev = d.get("/info").json["device"]
            if name != "f32" and dev["precision"] != name:
                raise Skip("this card's is %s: %s" % (dev["precision"], dev.get("why")))
            assert dev["backend"] == "cuda" and not dev["card"]["why"], dev
            worst = min(cosine(embed(d, who + "-1"), want[who]) for who in PEOPLE)
            assert worst >= LEAST[name], worst
            assert d.metric("facenetd_device_failovers_total") == 0


for one in LEAST:
    precision(one)


@case("faces that the card finds are the processor's")
def _(ctx):
    def found(d):
        return sorted(expect(d.post("/detect", picture("group")), 200).json["faces"],
                      key=lambda f: f["box"]["x0"])
    with daemon("cpu", "--precision", "f32") as d:
        want = found(d)
    with daemon("cuda") as d:
        got = found(d)
        assert d.metric("facenetd_detection_on_device") == 1, d.get("/info").json["device"]
        assert d.metric("facenetd_detection_failovers_total") == 0
    assert len(got) == len(want) > 1, (got, want)
    for a, b in zip(got, want):
        worst = max(abs(a["box"][k] - b["box"][k]) for k in b["box"])
        assert worst < 2, (a, b)


@case("a card with too little memory: the processor serves, or exit 69")
def _(ctx):
    little = ("--device-memory", "1048576")
    with daemon("auto", *little) as d:
        on_processor(d, lambda dev: dev["card"]["why"])
    ends("", *little)


@case("a card that cannot be seen: the processor serves, or exit 69")
def _(ctx):
    with daemon("auto", env=NO_CARD) as d:
        on_processor(d, lambda dev: dev["why"])
        assert d.metric("facenetd_device_up") == 0
    ends("", env=NO_CARD)
