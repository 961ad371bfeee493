"""The main job with nothing but this tree: the default models and the demo
pictures of models/, as README's Start does it."""

import os
import shutil

from client import CARD, CTL, PHOTO, ROOT, Daemon, Skip, expect, read, run

CASES = []
MODELS = os.path.join(ROOT, "models")
NETWORKS = ("embedder", "detector_pnet", "detector_rnet", "detector_onet")
PEOPLE = ("ada", "ben", "chen", "dov")
# group.jpg from left to right; eve has no picture of her own
GROUP = ("chen", "ben", "eve", "ada", "dov")


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def daemon(ctx):
    for name in NETWORKS:
        if not os.path.exists(os.path.join(MODELS, name + ".onnx")):
            raise Skip("no models/%s.onnx" % name)
    return ctx.once("demo-daemon", lambda: Daemon(MODELS, "--deadline-ms", "600000"))


def path(name):
    return os.path.join(MODELS, "demo", name + ".jpg")


def picture(name):
    return read(path(name))


def verify(d, one, two):
    return expect(d.post("/verify", [("image1", picture(one)), ("image2", picture(two))]),
                  200).json


def enrolled(ctx, gallery):
    """A daemon that knows everyone but eve, each from one picture."""
    d = daemon(ctx)
    for who in PEOPLE:
        expect(d.post("/enroll", [("gallery", gallery), ("subject", who),
                                  ("image", picture(who + "-1"))]), 201, gallery=gallery)
    return d


@case("one face in each portrait, every face in the group")
def _(ctx):
    d = daemon(ctx)
    for who in PEOPLE:
        for name in (who + "-1", who + "-2"):
            faces = expect(d.post("/detect", picture(name)), 200).json["faces"]
            assert len(faces) == 1 and faces[0]["detection_score"] > 0.9, (name, faces)
    faces = expect(d.post("/detect", picture("group")), 200).json["faces"]
    assert len(faces) == len(GROUP), faces
    for face in faces:
        box, points = face["box"], face["landmarks"]
        (lx, ly), (rx, ry), (nx, ny), (ml, mly), (mr, mry) = points
        assert lx < rx and ml < mr and max(ly, ry) < ny < min(mly, mry), points
        assert all(box["x0"] < x < box["x1"] and box["y0"] < y < box["y1"] for x, y in points)


@case("two pictures of one person match")
def _(ctx):
    d = daemon(ctx)
    for who in PEOPLE:
        a = verify(d, who + "-1", who + "-2")
        assert a["match"] and 0 < a["distance"] < a["threshold"], (who, a)
        assert a["far"] is None or 0 < a["far"] < 1, a


@case("pictures of two people do not")
def _(ctx):
    d = daemon(ctx)
    for i, one in enumerate(PEOPLE):
        for other in PEOPLE[i + 1:]:
            a = verify(d, one + "-1", other + "-2")
            assert not a["match"] and a["distance"] > a["threshold"], (one, other, a)


@case("everyone enrolled is found in the group, the stranger is not")
def _(ctx):
    d = enrolled(ctx, "group")
    a = expect(d.post("/identify", [("gallery", "group"), ("faces", "all"), ("limit", "1"),
                                    ("image", picture("group"))]), 200).json
    found = [[c["subject"] for c in face["candidates"]]
             for face in sorted(a["faces"], key=lambda f: f["box"]["x0"])]
    assert found == [[] if who == "eve" else [who] for who in GROUP], found


@case("a second picture of an enrolled person is that person")
def _(ctx):
    d = enrolled(ctx, "second")
    for who in PEOPLE:
        faces = expect(d.post("/identify", [("gallery", "second"),
                                            ("image", picture(who + "-2"))]), 200).json["faces"]
        assert [c["subject"] for c in faces[0]["candidates"]] == [who], (who, faces)


@case("crops that are aligned already are answered like the photos that they are of")
def _(ctx):
    d = daemon(ctx)
    model = os.path.join(MODELS, "embedder.onnx")
    photos, crops = ctx.path("demo-photos"), ctx.path("demo-crops")
    for who in ("ada", "ben"):
        os.makedirs(os.path.join(photos, who))
        for i in "12":
            shutil.copy(path(who + "-" + i), os.path.join(photos, who, i + ".jpg"))
    run(CTL, "align", photos, crops, "--detectors", MODELS, "--model", model, "--png")

    def crop(name):
        who, i = name.split("-")
        return read(os.path.join(crops, who, i + ".png"))

    # a card that finds the face places it elsewhere by a hundredth of a pixel
    near = 1e-2 if CARD else 1e-4
    for one, two in (("ada-1", "ada-2"), ("ada-1", "ben-2")):
        a = expect(d.post("/verify", [("image1", crop(one)), ("image2", crop(two)),
                                      ("faces", "aligned")]), 200).json
        b = verify(d, one, two)
        assert abs(a["distance"] - b["distance"]) < near and a["match"] == b["match"], (a, b)
        face = a["faces"]["image1"]
        assert face["landmarks"] == [] and face["faces_found"] == 1, face
        assert face["box"] == {"x0": 0, "y0": 0, "x1": 112, "y1": 112}, face
        assert a["timings_ms"]["detect"] == 0, a
    expect(d.post("/enroll", [("gallery", "crops"), ("subject", "ada"), ("faces", "aligned"),
                              ("image", crop("ada-1"))]), 201)
    a = expect(d.post("/identify", [("gallery", "crops"), ("faces", "aligned"),
                                    ("image", crop("ada-2"))]), 200).json
    assert [c["subject"] for c in a["faces"][0]["candidates"]] == ["ada"], a
    a = expect(d.post("/identify", [("gallery", "crops"), ("image", picture("ada-2"))]),
               200).json
    assert [c["subject"] for c in a["faces"][0]["candidates"]] == ["ada"], a
    rows = d.get("/subjects/ada/faces?gallery=crops").json["faces"]
    assert [r["crop"] for r in rows] == [False], rows


@case("a picture that is no crop of the model's size is named")
def _(ctx):
    d = daemon(ctx)
    a = expect(d.post("/verify", [("image1", picture("ada-1")), ("image2", picture("ada-2")),
                                  ("faces", "aligned")]), 400, "bad_field", image="image1")
    assert "takes pictures of 112x112, this one is 300x360" in a.json["detail"], a
    expect(d.post("/detect", [("image", picture("ada-1")), ("faces", "aligned")]), 400,
           "bad_field")


@case("a picture without a face is named")
def _(ctx):
    d = daemon(ctx)
    wall = ctx.path("demo-wall.jpg")
    run(PHOTO, "plain", "300", "300", wall)
    a = expect(d.post("/verify", [("image1", picture("ada-1")), ("image2", read(wall))]), 422,
               "no_face", image="image2", retryable=False)
    assert "image2" in a.json["detail"] or "face" in a.json["detail"], repr(a)
    expect(d.post("/enroll", [("subject", "wall"), ("image", read(wall))]), 422, "no_face")


@case("the command line says the same, by its exit status too")
def _(ctx):
    server = "http://127.0.0.1:%d" % daemon(ctx).port
    same = run(CTL, "verify", "--server", server, path("ada-1"), path("ada-2"))
    assert same.stdout.startswith("same person"), same.stdout
    other = run(CTL, "verify", "--server", server, path("ada-1"), path("ben-1"), ok=False)
    assert other.returncode == 1 and "different" in other.stdout, other
