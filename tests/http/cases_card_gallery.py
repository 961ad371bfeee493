"""Cases of galleries on a card that is played by tests/fake_gpu.c: whatever it
does, an identification gives what the processor's does."""

import contextlib
import os
import random
import shutil
import sqlite3
import struct

from cases_card import Card, device
from cases_models import (SIGHT, activate, fill, found, network, picture, rollback,
                          seeing, subject_of, upload, wait_state, wait_until)
from client import BUILD, Daemon, expect

CASES = []
CROWD = 3000  # faces of nobody, so that the card is worth asking
REAL = 16     # of pictures
WORTH = 1900  # rows that are brought of so many: see WORTH_ROWS, CHUNK_ROWS


def case(name):
    def add(fn):
        CASES.append((name, fn))
        return fn
    return add


def unit(r, dim=128):
    v = [r.gauss(0, 1) for _ in range(dim)]
    length = sum(x * x for x in v) ** 0.5
    return struct.pack("<%df" % dim, *(x / length for x in v))


def crowded(ctx):
    """A data directory with a crowd in it that two models know; the ids of the
    models, and the processor's answers by each."""
    def make():
        where = ctx.path("crowded")
        r = random.Random(5)
        with Daemon(seeing(ctx), *SIGHT, "--precision", "f32", data=where) as d:
            fill(d, REAL)
            ids = [d.get("/info").json["model"]["id"], upload(d, network(ctx, 100))["id"]]
        with contextlib.closing(sqlite3.connect(os.path.join(where, "facenetd.db"))) as db:
            gallery = db.execute("SELECT id FROM gallery").fetchone()[0]
            for i in ids:
                db.execute("INSERT OR IGNORE INTO model (sha256, dim, created_s)"
                           " VALUES (?, 128, 0)", (i,))
            models = [db.execute("SELECT id FROM model WHERE sha256 = ?", (i,)).fetchone()[0]
                      for i in ids]
            for n in range(CROWD):
                subject = db.execute(
                    "INSERT INTO subject (gallery_id, ext_id, name, created_s, updated_s)"
                    " VALUES (?, ?, '', 0, 0)", (gallery, "crowd%d" % n)).lastrowid
                face = db.execute(
                    "INSERT INTO face (subject_id, created_s, score, box, crop_kind)"
                    " VALUES (?, 0, 1, zeroblob(16), 0)", (subject,)).lastrowid
                for m in models:
                    db.execute("INSERT INTO embedding VALUES (?, ?, 128, ?)", (face, m, unit(r)))
            db.commit()
        with Daemon(seeing(ctx), *SIGHT, "--precision", "f32", data=where) as d:
            want = [{seed: answer(d, seed) for seed in range(4)}]
            activate(d, ids[1])
            wait_state(d, ids[1])
            want.append({seed: answer(d, seed) for seed in range(4)})
            rollback(d)
            wait_state(d, ids[0])
        return where, ids, want
    return ctx.once("crowded", make)


@contextlib.contextmanager
def daemon(ctx, card, *args):
    where, ids, want = crowded(ctx)
    copy = ctx.path("crowd-%d" % ctx.n_cards)
    shutil.copytree(where, copy)
    try:
        with card.daemon(ctx, *SIGHT, *args, data=copy) as d:
            yield d, ids, want
    finally:
        shutil.rmtree(copy)


def answer(d, seed, faces="all"):
    """Of each face, who is near: (subject, face, distance)."""
    a = expect(d.post("/identify", [("image", picture(seed)), ("threshold", "4"),
                                    ("faces", faces)]), 200).json
    return [[(c["subject"], c["face"], c["distance"]) for c in face["candidates"]]
            for face in a["faces"]]


def same(got, want):
    assert [[c[:2] for c in face] for face in got] == [[c[:2] for c in face] for face in want]
    for a, b in zip(sum(got, []), sum(want, [])):
        assert abs(a[2] - b[2]) < 1e-5, (a, b)


def on_card(d):
    return d.get("/info").json["gallery"]["card"]


def wait_brought(d, rows=WORTH):
    return wait_until(lambda: (lambda g: g if g["rows"] >= rows else None)(on_card(d)))


def searches(d):
    return d.metric("facenetd_device_searches_total")


def same_on_card(d, want, seed=0):
    """The processor's answer, by the card."""
    before = searches(d)
    same(answer(d, seed), want[seed])
    assert searches(d) == before + len(want[seed]), (before, searches(d))


# --- a good card --------------------------------------------------------------------

@case("the card's answers are the processor's, after enrolment and deletion too")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card) as (d, _, (want, _)):
        one = wait_brought(d)
        assert one["searched"] and one["rows_left_out"] == 0 and one["why"] is None, one
        d.wait_log(r"event=device gallery=\w+ rows=%d left_out=0 " % one["rows"])
        asks = card.seen()["asks"]
        for seed in want:
            same_on_card(d, want, seed)
        seen = card.seen()
        assert all(len(faces) > 1 for faces in want.values())
        assert seen["asks"] - asks == len(want), seen  # all faces of a photo at once
        fill(d, 8, 40)  # not on the card yet
        found(d, (40, 47), d.get("/info").json["model"]["id"])
        expect(d.delete("/subjects/" + subject_of(40)), 200)
        assert all(c[0] != subject_of(40) for face in answer(d, 40) for c in face)
        # One who is on the card: none of it is found any more.
        who = want[2][0][0][0]
        expect(d.delete("/subjects/" + who), 200)
        assert all(c[0] != who for face in answer(d, 2) for c in face)
        text = d.get("/metrics").body.decode()
        for line in ("facenetd_device_searches_gallery 1",
                     "facenetd_device_gallery_rows %d" % one["rows"],
                     "facenetd_device_gallery_rows_left_out 0",
                     "facenetd_device_search_failures_total 0"):
            assert "\n" + line + "\n" in text, line
        info = device(d)["card"]
        assert info["searches"] == searches(d) > 0 and info["search_failures"] == 0, info
        expect(d.delete("/galleries/default"), 200)
        wait_until(lambda: card.seen()["rows"] == 0)  # overwritten


@case("a photo of more faces than are asked for at once")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card, "--min-face", "36") as (d, _, _):
        wait_brought(d)
        before, asks = searches(d), card.seen()["asks"]
        got = answer(d, 0)
        assert len(got) > 32 and searches(d) == before + len(got), len(got)
        assert card.seen()["asks"] == asks + (len(got) + 31) // 32
        card.tell("bad-search")
        same(answer(d, 0), got)  # the processor


@case("models switch, and back, with the gallery on the card")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card) as (d, (old, new), want):
        wait_brought(d)
        for turn in range(4):
            ident = (new, old)[turn % 2]
            activate(d, ident) if turn == 0 else rollback(d)
            wait_state(d, ident)
            same(answer(d, 1), want[1 - turn % 2][1])
            wait_brought(d)
            same_on_card(d, want[1 - turn % 2], 2)
        card.tell("lost-search absent")
        same(answer(d, 1), want[0][1])
        rollback(d)
        wait_state(d, new)
        same(answer(d, 1), want[1][1])
        card.tell("")
        wait_brought(d)
        same_on_card(d, want[1], 2)


@case("the plugin itself, with plain memory for a card")
def _(ctx):
    where, _, (want, _) = crowded(ctx)
    copy = ctx.path("crowd-emulated")
    shutil.copytree(where, copy)
    with Daemon(seeing(ctx), *SIGHT, "--precision", "f32", "--device", "cuda",
                "--device-batch-max", "1", "--no-device-tune", "--device-timeout-ms", "60000",
                "--deadline-ms", "120000", "--device-plugin",
                os.path.join(BUILD, "tests", "gpu", "emulated.so"), data=copy) as d:
        wait_brought(d)
        for seed in want:
            same_on_card(d, want, seed)
    shutil.rmtree(copy)


# --- a card that fails --------------------------------------------------------------

@case("a card that is lost in a search: the processor answers, then the card again")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card) as (d, _, (want, _)):
        wait_brought(d)
        card.tell("lost-search")
        same(answer(d, 0), want[0])
        wait_until(lambda: device(d)["card"]["lost"] == 1)
        assert d.metric("facenetd_device_search_failures_total") == len(want[0])
        same(answer(d, 1), want[1])
        assert "fell off the bus" in d.wait_log(r"event=device card=down ")
        card.tell("")
        wait_brought(d)
        same_on_card(d, want)
        assert device(d)["card"]["opened"] == card.seen()["opened"] >= 2


@case("searches that fail on a card that does not: its networks stay")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card) as (d, _, (want, _)):
        wait_brought(d)
        card.tell("bad-search")
        same(answer(d, 0), want[0])
        line = d.wait_log(r"event=device gallery=\w+ why=")
        assert "a search went wrong" in line and "the processor searches" in line, line
        one = on_card(d)
        assert not one["searched"] and "went wrong" in one["why"], one
        assert d.metric("facenetd_device_searches_gallery") == 0
        assert device(d)["card"]["state"] == "up" and device(d)["backend"] == "cuda"
        same(answer(d, 1), want[1])
        card.tell("")
        wait_brought(d)
        same_on_card(d, want)
        assert device(d)["card"]["lost"] == 0


@case("a search that hangs is answered; a card that hangs with it is left alone")
def _(ctx):
    card = Card(ctx)
    with daemon(ctx, card, "--device-timeout-ms", "1000") as (d, _, (want, _)):
        wait_brought(d)
        card.tell("hang-search")
        same(answer(d, 0), want[0])
        wait_until(lambda: "no answer within 1000 ms" in (on_card(d)["why"] or ""))
        assert device(d)["card"]["state"] == "up"
        card.tell("")
        wait_brought(d)
        same_on_card(d, want)
        card.tell("hang-search hang")
        same(answer(d, 0), want[0])
        wait_until(lambda: device(d)["card"]["state"] == "hung")
        wait_until(lambda: not on_card(d)["searched"])
        card.tell("")
        same(answer(d, 1), want[1])
        assert device(d)["card"]["state"] == "hung"


@case("enrolment goes on while the card takes no rows")
def _(ctx):
    card = Card(ctx, "hang-put")
    with daemon(ctx, card) as (d, _, (want, _)):
        wait_until(lambda: on_card(d)["searched"])
        same(answer(d, 0), want[0])
        fill(d, 8, 40)
        found(d, (40,), d.get("/info").json["model"]["id"])
        expect(d.delete("/subjects/" + subject_of(40)), 200)
        assert on_card(d)["rows"] == 0
        card.tell("")
        wait_brought(d)
        same_on_card(d, want)


# --- memory -------------------------------------------------------------------------

@case("rows for which the card has no memory are the processor's")
def _(ctx):
    for words, args in (("rows=1", ()), ("", ("--device-gallery-memory", "1M"))):
        card = Card(ctx, words)
        with daemon(ctx, card, *args) as (d, _, (want, _)):
            one = wait_until(lambda: (lambda g: g if g["why"] else None)(on_card(d)))
            assert "no memory on the card for %d " % one["rows_left_out"] in one["why"], one
            assert one["searched"] and one["rows"] + one["rows_left_out"] >= WORTH, one
            assert d.metric("facenetd_device_gallery_rows_left_out") == one["rows_left_out"] > 0
            d.wait_log(r'event=device gallery=\w+ why="no memory on the card for')
            same(answer(d, 0), want[0])


@case("no rows go to the card: none fits, or the setting is 0")
def _(ctx):
    card = Card(ctx, "rows=0")
    with daemon(ctx, card) as (d, _, (want, _)):
        wait_until(lambda: "no memory on the card for rows" in (on_card(d)["why"] or ""))
        same(answer(d, 0), want[0])
        assert device(d)["card"]["state"] == "up" and not on_card(d)["searched"]
        card.tell("")
        wait_brought(d)
        same_on_card(d, want)
    card = Card(ctx)
    with daemon(ctx, card, "--device-gallery-memory", "0") as (d, _, (want, _)):
        same(answer(d, 0), want[0])
        assert "device-gallery-memory is 0" in on_card(d)["why"], on_card(d)
        assert card.seen()["rows"] == 0 and searches(d) == 0
    with daemon(ctx, card, "--device", "cpu") as (d, _, (want, _)):
        same(answer(d, 0), want[0])
        assert on_card(d) == {"searched": False, "rows": 0, "rows_left_out": 0,
                              "why": "the setting device is cpu"}, on_card(d)


@case("a network that finds no memory gets that of the rows")
def _(ctx):
    card = Card(ctx, "tight")
    with daemon(ctx, card) as (d, (_, new), want):
        wait_brought(d)
        activate(d, new)
        wait_state(d, new)
        assert d.metric("facenetd_device_serves") == 1
        same(answer(d, 0), want[1][0])
        wait_brought(d)
        same_on_card(d, want[1])
