#!/usr/bin/env python3
"""Draws the demo pictures of this folder: heads that nobody has.

usage: draw.py [--fine] [-o FOLDER] [NAME]...   --fine: four rays for each point

Each head is a solid made of ellipsoids and capsules that melt into each other
(a signed distance, marched along a ray for every point of the picture), with
skin, lips, brows, eyes and hair painted on by formulas and lit by one lamp
and a sky. Nothing comes from a photograph. PEOPLE says how the invented
persons differ, PICTURES who is in which picture and how. Units are
decimetres: x to the picture's right, y up, z towards the viewer, the middle
between the eyes at the height 0. Needs python3-numpy and python3-pil.
"""

import os
import sys

import numpy as np
from PIL import Image

from people import PICTURES, person, view

F = np.float32
SKIN, EYE, HAIR, CLOTH, FRAME = range(5)


# --- solids: distance from points, melted unions ------------------------------

def ellipsoid(x, y, z, c, r):
    """Distance to an ellipsoid, exact on its surface, near enough elsewhere."""
    a, b, d = (x - F(c[0])), (y - F(c[1])), (z - F(c[2]))
    r = [F(v) for v in r]
    k0 = np.sqrt((a / r[0])**2 + (b / r[1])**2 + (d / r[2])**2)
    k1 = np.sqrt((a / r[0]**2)**2 + (b / r[1]**2)**2 + (d / r[2]**2)**2)
    return k0 * (k0 - 1) / (k1 + F(1e-6))


def ball(x, y, z, c, r):
    return np.sqrt((x - F(c[0]))**2 + (y - F(c[1]))**2 + (z - F(c[2]))**2) - F(r)


def capsule(x, y, z, a, b, ra, rb=None):
    """A stick from a to b, its radius going from ra to rb."""
    rb = ra if rb is None else rb
    d = [F(q - p) for p, q in zip(a, b)]
    u, v, w = x - F(a[0]), y - F(a[1]), z - F(a[2])
    t = np.clip((u * d[0] + v * d[1] + w * d[2]) / F(sum(e * e for e in d)), 0, 1)
    return np.sqrt((u - t * d[0])**2 + (v - t * d[1])**2 + (w - t * d[2])**2) - \
        (F(ra) + t * F(rb - ra))


def join(a, b, k):
    """The union, its seam rounded over a width k."""
    h = np.maximum(F(k) - np.abs(a - b), 0) / F(k)
    return np.minimum(a, b) - h * h * F(k / 4)


def carve(a, b, k):
    """a without b."""
    return -join(-a, b, k)


def step(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(F)


# --- one head -----------------------------------------------------------------

def lid_gap(x, y, p, v):
    """How far inside the opening between the lids: positive is open. x from
    the eye's middle outwards, in its radii."""
    y = y - F(p["slant"]) * x
    bow = 1 - (x / F(0.98))**2 * np.where(x < 0, F(1.0), F(0.92))
    upper = F(p["eye_open"] * v["eyes"]) * bow + F(0.06) * x
    lower = F(0.06 * v["smile"] - 0.36) * bow
    return np.minimum(upper - y, y - lower)


def eye_at(p):
    return (p["eye_x"], 0.0, p["eye_z"])


def mouth_bend(x, p, v):
    """How much higher the mouth is at x than in its middle."""
    return F(v["smile"] * 1.1 + p["mouth_bend"]) * x * x


def skin(x, y, z, p, v):
    """Distance to face, ears and neck. x is the distance from the middle."""
    d = ellipsoid(x, y, z, (0, 0.30, -0.10), (p["skull_w"], p["skull_h"], 0.90))
    d = join(d, ellipsoid(x, y, z, (0, -0.25, 0.12), (p["face_w"], 0.80, 0.64)), 0.15)
    jaw = p["jaw_y"]
    d = join(d, capsule(x, y, z, (p["jaw_w"], -0.62, 0.02),
                        (p["chin_w"], jaw + 0.13, p["chin_z"] - 0.14), 0.15, 0.14), 0.22)
    d = join(d, ball(x, y, z, (0, jaw + 0.15, p["chin_z"] - 0.16), 0.17), 0.10)
    d = join(d, ball(x, y, z, (p["cheekbone_x"], -0.20, 0.42), p["cheekbone"]), 0.22)
    d = join(d, ball(x, y, z, (0.30, -0.48 + 0.05 * v["smile"], 0.44 + 0.03 * v["smile"]),
                     p["cheek"]), 0.22)
    d = join(d, capsule(x, y, z, (0.10, 0.20, 0.66), (0.45, 0.20, 0.52), p["brow_bone"]), 0.16)
    d = carve(d, ellipsoid(x, y, z, (p["eye_x"], -0.02, p["eye_z"] + 0.24),
                           (0.22, 0.15, 0.16)), 0.14)
    # The nose: bridge, tip, wings, holes.
    n = p["nose_y"]
    d = join(d, capsule(x, y, z, (0, 0.10, p["bridge_z"]), (0, n + 0.09, p["nose_z"] - 0.12),
                        p["bridge"], p["nose_tip"] * 0.9), 0.10)
    d = join(d, ball(x, y, z, (0, n + 0.06, p["nose_z"] - p["nose_tip"]), p["nose_tip"]), 0.05)
    d = join(d, ellipsoid(x, y, z, (p["wing_x"], n + 0.045, p["nose_z"] - 0.20),
                          (0.06, 0.058, 0.09)), 0.06)
    d = carve(d, ellipsoid(x, y, z, (p["wing_x"] * 0.52, n - 0.02, p["nose_z"] - 0.14),
                           (0.032, 0.028, 0.05)), 0.02)
    # The mouth: a mound, two lips, the gap between them.
    m, w, lip = p["mouth_y"], p["mouth_w"] * (1 + 0.16 * v["smile"]), p["lip"]
    y2 = y - mouth_bend(x, p, v)
    mz = p["mouth_z"]
    d = join(d, ellipsoid(x, y, z, (0, m, mz - 0.22), (0.30, 0.24, 0.22)), 0.16)
    d = join(d, capsule(x, y2, z, (0.035, m + 0.04, mz - 0.015), (w, m + 0.005, mz - 0.135),
                        lip, lip * 0.45), 0.045)
    d = join(d, capsule(x, y2, z, (0.0, m - 0.055, mz - 0.02),
                        (w * 0.85, m - 0.012, mz - 0.12), lip * 1.2, lip * 0.5), 0.05)
    d = carve(d, ellipsoid(x, y2, z, (0, m, mz), (w * 0.98, 0.006, 0.10)), 0.02)
    d = carve(d, ellipsoid(x, y, z, (0, m - 0.16, mz), (0.16, 0.035, 0.06)), 0.08)
    d = carve(d, capsule(x, y, z, (0, n - 0.05, mz + 0.045), (0, m + 0.08, mz + 0.03), 0.03), 0.05)
    # Lids: a shell round the eyeball, open in front.
    e = eye_at(p)
    r = p["eye_r"]
    shell = ball(x, y, z, e, r + 0.018)
    gap = lid_gap((x - F(e[0])) / F(r), (y - F(e[1])) / F(r), p, v) * F(r)
    d = join(d, shell, 0.045)
    d = np.where(np.abs(z - F(e[2] + 0.1)) < F(0.16), np.maximum(d, gap * F(0.8)), d)
    # Ears and neck.
    ear = ellipsoid(x, y + z * F(0.15), z - x * F(0.5), (p["skull_w"] + 0.03, -0.10, -0.42),
                    (0.055, 0.26, 0.15))
    ear = carve(ear, ellipsoid(x, y, z - x * F(0.5), (p["skull_w"] + 0.08, -0.08, -0.36),
                               (0.05, 0.17, 0.08)), 0.04)
    d = join(d, ear, 0.05)
    neck = capsule(x, y, z, (0, -0.80, -0.22), (0, -1.9, -0.32), p["neck"], p["neck"] + 0.06)
    return join(d, neck, 0.12)


def cloth(x, y, z, p):
    d = ellipsoid(x, y, z, (0, -2.42, -0.34), (p["shoulders"], 0.82, 0.62))
    d = join(d, capsule(x, y, z, (0, -1.52, -0.30), (0, -1.9, -0.3), p["neck"] + 0.12), 0.12)
    return carve(d, capsule(x, y, z, (0, -1.2, -0.20), (0, -1.72, -0.10), p["neck"] - 0.01,
                            p["neck"] + p["collar"]), 0.03)


def hair(x, y, z, p, side):
    """Distance to the hair; side is the signed x."""
    kind = p["hair"]
    t = p["hair_thick"]
    d = ellipsoid(x, y, z, (0, 0.31, -0.13), (p["skull_w"] + t, p["skull_h"] + t, 0.90 + t))
    part = F(p["part"])
    line = F(p["hairline"]) + F(0.10) * np.abs(side - part) * np.sign(part + F(1e-6))
    front = ellipsoid(x, y - line, z, (0, -0.75, 0.90), (p["skull_w"] - 0.06, 1.0, 0.80))
    if kind == "short":
        d = carve(d, front, 0.06)
        d = np.maximum(d, F(-0.12) - y + F(0.22) * np.maximum(z, F(-0.5)))
        d = np.maximum(d, z - F(0.30) - np.maximum(y - F(0.35), 0) * 2)
    elif kind == "ring":
        d = np.maximum(d, F(-0.25) - y + F(0.22) * np.maximum(z, F(-0.5)))
        d = carve(d, F(0.06) - z, 0.12)
        d = carve(d, F(0.40) - F(0.35) * z - y, 0.16)
    else:
        low = p["hair_low"]
        size = (p["skull_w"] + t + p["hair_wide"], (0.9 - low) / 2 + 0.2, 0.62)
        d = join(d, ellipsoid(x, y, z, (0, (0.2 + low) / 2, -0.38), size), 0.2)
        d = carve(d, front, 0.06)
        d = np.maximum(d, F(low) - y)
    if kind == "bun":
        d = join(d, ball(x, y, z, (0, 1.12, -0.55), 0.36), 0.08)
    return d


def frame(x, y, z, p):
    """Glasses."""
    if not p["glasses"]:
        return None
    e = eye_at(p)
    a, b = (x - F(e[0] + 0.01)) / F(0.235), (y + F(0.03)) / F(0.185)
    q = np.sqrt(a * a + b * b)
    ring = np.sqrt(((q - 1) * F(0.20))**2 + (z - F(0.80) + F(0.25) * x * x)**2) - F(0.016)
    d = np.minimum(ring, capsule(x, y, z, (0, 0.03, 0.84), (0.09, 0.02, 0.81), 0.016))
    return np.minimum(d, capsule(x, y, z, (e[0] + 0.24, 0.03, 0.72),
                                 (p["skull_w"] + 0.02, 0.03, -0.1), 0.014))


def solid(q, p, v, what=False):
    """Distance of points q [3,n] to the whole; what: also which part is
    nearest."""
    side, y, z = q
    x = np.abs(side)
    parts = [(SKIN, skin(x, y, z, p, v)), (EYE, ball(x, y, z, eye_at(p), p["eye_r"])),
             (CLOTH, cloth(x, y, z, p))]
    locks = F(p["hair_rough"]) * ripples(q, p)
    parts.append((HAIR, (hair(x, y, z, p, side) - locks) * F(0.8)))
    f = frame(x, y, z, p)
    if f is not None:
        parts.append((FRAME, f))
    d = parts[0][1]
    for _, other in parts[1:]:
        d = np.minimum(d, other)
    if not what:
        return d
    return np.argmin(np.stack([a for _, a in parts]), 0), [k for k, _ in parts]


def ripples(q, p):
    """Locks of hair, -1 to 1."""
    x, y, z = q
    if p["hair"] == "short":
        return (np.sin(x * 31 + np.sin(y * 19) * 2) * np.sin(y * 29 + np.sin(z * 17) * 2) *
                np.sin(z * 27 + np.sin(x * 23) * 2)).astype(F)
    turn = np.arctan2(x, z + F(0.3)) * 14
    locks = np.sin(turn + np.sin(y * 4)) * F(0.6) + np.sin(turn * F(2.7) + y * 2) * F(0.4)
    return locks.astype(F)


# --- noise ----------------------------------------------------------------------

def noise(x, y, z):
    """Smooth noise over space, 0 to 1."""
    ix, iy, iz = np.floor(x), np.floor(y), np.floor(z)
    fx, fy, fz = x - ix, y - iy, z - iz
    fx, fy, fz = (t * t * (3 - 2 * t) for t in (fx, fy, fz))

    def at(dx, dy, dz):
        h = ((ix + dx).astype(np.int64) * 374761393 + (iy + dy).astype(np.int64) * 668265263 +
             (iz + dz).astype(np.int64) * 2147483647) & 0xFFFFFFFF
        h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
        return ((h ^ (h >> 16)) & 0xFFFF).astype(F) / F(65535)

    def mix(a, b, t):
        return a + (b - a) * t

    return mix(mix(mix(at(0, 0, 0), at(1, 0, 0), fx), mix(at(0, 1, 0), at(1, 1, 0), fx), fy),
               mix(mix(at(0, 0, 1), at(1, 0, 1), fx), mix(at(0, 1, 1), at(1, 1, 1), fx), fy),
               fz).astype(F)


# --- paint ------------------------------------------------------------------------

def over(base, colour, mask):
    return base + (np.asarray(colour, F)[:, None] - base) * mask


def paint_skin(q, p, v):
    side, y, z = q
    x = np.abs(side)
    tone = np.asarray(p["skin"], F)[:, None]
    c = np.repeat(tone, x.size, 1)
    mottle = noise(side * 6, y * 6, z * 6) - F(0.5)
    fine = noise(side * 45, y * 45, z * 45) - F(0.5)
    c = c * (1 + F(0.10) * mottle + F(0.09) * fine)
    front = step(0.2, 0.5, z)
    red = np.asarray([1.06, 0.80, 0.78], F)[:, None]
    blush = np.exp(-(((x - F(0.38)) / F(0.2))**2 + ((y + F(0.35)) / F(0.17))**2)) * F(0.6) + \
        np.exp(-((x / F(0.12))**2 + ((y - F(p["nose_y"] + 0.05)) / F(0.12))**2)) * F(0.55)
    c = c * (1 + (red - 1) * blush * front * F(p["blush"]))
    if p["freckles"]:
        spots = step(0.70, 0.80, noise(side * 26, y * 26, z * 26)) * front * \
            np.exp(-((y + F(0.2)) / F(0.25))**2)
        c = over(c, tone[:, 0] * F(0.62), spots * F(p["freckles"]))
    # Shade round the eyes, and a line of lashes at the lids.
    e, r = eye_at(p), p["eye_r"]
    ex, ey = (x - F(e[0])) / F(r), (y - F(e[1])) / F(r)
    c = c * (1 - F(p["eye_shade"]) * np.exp(-((ex / 1.7)**2 + ((ey - F(0.1)) / 1.1)**2)) *
             front)[None]
    gap = lid_gap(ex, ey, p, v)
    upper = (ey > 0) | (ey > F(p["slant"]) * ex)
    near = step(1.4, 0.8, np.sqrt(ex**2 + (ey * F(0.6))**2)) * front
    lash = (1 - step(0.0, 0.20, -gap)) * near
    c = over(c, (0.05, 0.035, 0.03), lash * np.where(upper, F(p["lashes"]), F(0.45)))
    crease = np.exp(-((gap + F(0.42)) / F(0.10))**2) * (ey > 0) * near
    c = c * (1 - F(0.38) * crease)
    # Brows.
    b = (x - F(e[0] + 0.01)) / F(0.26)
    line = F(p["brow_y"] + 0.05 * v["brows"]) + F(p["brow_arch"]) * (1 - b * b) + \
        F(p["brow_tilt"]) * b
    thick = F(p["brow_thick"]) * np.clip(1.15 - F(0.55) * (b + F(0.3)), 0.35, 1.3)
    hairs = noise(side * 55 + y * 30, y * 14 + x * 10, z * 6)
    inside = step(1.15, 0.55, np.abs(y - line) / thick + (hairs - F(0.5)) * F(0.9)) * \
        step(1.08, 0.88, np.abs(b)) * front
    c = over(c, p["brow"], inside * F(p["brow_dark"]))
    # Lips.
    m, w, lip = p["mouth_y"], p["mouth_w"] * (1 + 0.16 * v["smile"]), p["lip"]
    yy = y - mouth_bend(x, p, v) - F(m)
    t = np.clip(x / F(w * 1.06), 0, 1)
    cupid = F(0.014) * np.exp(-(x / F(0.035))**2)
    top = (F(lip * 1.45 + 0.028) * (1 - t**1.6) - cupid)
    low = -(F(lip * 2.1 + 0.040) * np.sqrt(np.clip(1 - t**2, 0, 1)))
    lips = step(-0.012, 0.012, np.minimum(top - yy, yy - low)) * (x < F(w * 1.06)) * front
    crack = 1 - F(0.25) * step(0.55, 0.75, noise(side * 40, y * 5, z * 5))
    c = c + (np.asarray(p["lips"], F)[:, None] * crack - c) * lips * F(0.85)
    line = np.exp(-((yy - F(0.004)) / F(0.013))**2) * (x < F(w * 1.1)) * front
    c = c * (1 - F(0.75) * line)
    # Folds from the nose to the mouth, deeper with a smile and with age.
    fold_x = F(p["wing_x"] + 0.06) + (F(p["nose_y"] + 0.03) - y) * F(0.62)
    fold = np.exp(-((x - fold_x) / F(0.022))**2) * step(0.02, -0.06, y - F(p["nose_y"])) * \
        step(m - 0.10, m + 0.05, y) * front
    c = c * (1 - F(p["age"] * 0.42 + 0.14 * v["smile"]) * fold)
    if p["age"] > 0.4:
        rows = np.sin(y * 58 + noise(side * 4, y * 4, z * 4) * 4)
        c = c * (1 - F(0.16 * p["age"]) * step(0.6, 1.0, rows) * step(0.36, 0.46, y) *
                 step(0.55, 0.3, x) * front)
        bag = np.exp(-((ey + F(1.25)) / F(0.22))**2) * np.exp(-(ex / F(0.9))**2) * front
        c = c * (1 - F(0.25 * p["age"]) * bag)
    if p["beard"]:
        grain = noise(side * 60, y * 34, z * 60)
        area = step(-0.40, -0.62, y + F(0.55) * (F(0.45) - x) * (x < F(0.45)))
        cheek = step(0.0, 0.14, F(-0.42) - y + F(0.55) * (x - F(0.28)))
        stache = step(0.02, -0.03, y - F(p["nose_y"] - 0.07)) * step(0.34, 0.26, x)
        area = np.clip(np.maximum(np.minimum(area, cheek), stache), 0, 1)
        area = area * step(-0.35, -0.15, z) * step(-1.42, -1.22, y) * (1 - lips)
        amount = area * np.clip(F(p["beard"]) * (F(0.55) + grain), 0, 1)
        c = over(c, p["beard_colour"], amount)
    return c


def paint_eye(q, p, v):
    side, y, z = q
    e, r = eye_at(p), p["eye_r"]
    s = np.sign(side)
    gx, gy = v["gaze"]
    ix = (side - s * F(e[0])) / F(r) - F(gx)
    iy = (y - F(e[1])) / F(r) - F(gy)
    rad = np.sqrt(ix * ix + iy * iy)
    c = np.repeat(np.asarray([[0.86], [0.83], [0.81]], F), side.size, 1)
    c = c * (1 - F(0.25) * step(0.5, 1.0, np.abs(ix)))
    ray = F(0.75) + F(0.5) * noise(np.arctan2(iy, ix) * 6, rad * 2, rad * 0)
    iris = np.asarray(p["iris"], F)[:, None] * ray * (1 - F(0.5) * step(0.38, 0.5, rad))
    c = c + (iris - c) * (1 - step(0.47, 0.53, rad))
    c = over(c, (0.012, 0.01, 0.01), 1 - step(0.19, 0.25, rad))
    gap = lid_gap(s * (side - s * F(e[0])) / F(r), (y - F(e[1])) / F(r), p, v)
    shade = step(-0.05, 0.28, gap)
    c = c * (F(0.35) + F(0.65) * shade)
    glint = step(0.17, 0.08, np.sqrt((ix - F(0.16 * v["light"][0] - 0.02))**2 + (iy - F(0.2))**2))
    return c, glint


def paint_hair(q, p):
    x, y, z = q
    tone = np.asarray(p["hair_colour"], F)[:, None]
    turn = np.arctan2(x, z + F(0.3)) * 22 if p["hair"] != "short" else x * 26 + z * 8
    n = noise(turn, y * 2.5, z * 2.5) * F(0.5) + noise(turn * 3, y * 4, z * 4) * F(0.7)
    return tone * (F(0.45) + n)


# --- light and camera ---------------------------------------------------------------

def rotation(yaw, pitch, roll):
    a, b, c = (np.deg2rad(t) for t in (yaw, pitch, roll))
    ry = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    rx = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (rz @ rx @ ry).astype(F)


def march(origin, ray, t, p, v):
    """How far along each ray, from t on, the solid is met; infinite: nowhere."""
    far = F(11)
    hit = np.zeros(t.size, bool)
    live = np.flatnonzero(t < far)
    for _ in range(90):
        if not live.size:
            break
        q = origin[:, None] + ray[:, live] * t[live]
        d = solid(q, p, v)
        t[live] += d * F(0.85)
        done = d < 0.0015
        hit[live[done]] = True
        live = live[~done & (t[live] < far)]
    t[~hit] = np.inf
    return t


def nearest_around(t):
    """The least of each place's 3 x 3 neighbours."""
    wide = np.pad(t, 1, mode="edge")
    h, w = t.shape
    return np.min([wide[i:i + h, k:k + w] for i in range(3) for k in range(3)], 0)


def normal(q, p, v):
    h = F(0.0025)
    n = np.zeros_like(q)
    for k in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k = np.asarray(k, F)[:, None]
        n += k * solid(q + k * h, p, v)
    return n / (np.sqrt((n * n).sum(0)) + F(1e-9))


def shadow(q, light, p, v):
    """How much of the lamp is seen, 0 to 1, with soft edges."""
    out = np.ones(q.shape[1], F)
    t = np.full(q.shape[1], 0.03, F)
    live = np.arange(q.shape[1])
    for _ in range(26):
        d = solid(q[:, live] + light[:, None] * t[live], p, v)
        out[live] = np.minimum(out[live], F(0.5) + F(0.5) * d / (F(0.09) * t[live]))
        t[live] += np.clip(d, 0.02, 0.2)
        live = live[(t[live] < 2.6) & (out[live] > 0)]
        if not live.size:
            break
    out = np.clip(out, 0, 1)
    return out * out * (3 - 2 * out)


def openness(q, n, p, v):
    """How much sky a point sees."""
    lost = np.zeros(q.shape[1], F)
    for i, far in enumerate((0.03, 0.09, 0.18, 0.32)):
        lost += np.clip(F(far) - solid(q + n * F(far), p, v), 0, None) * F(1.7 / 2**i / far * 0.5)
    return np.clip(1 - lost, 0.15, 1)


def shade(q, ray, p, v, light):
    """Colours [3,n] of points q seen along ray."""
    index, kinds = solid(q, p, v, what=True)
    kind = np.asarray(kinds)[index]
    n = normal(q, p, v)
    colour = np.zeros_like(q)
    gloss = np.full(q.shape[1], 0.10, F)
    sharp = np.full(q.shape[1], 14.0, F)
    glint = np.zeros(q.shape[1], F)
    for k in kinds:
        at = kind == k
        if not at.any():
            continue
        if k == SKIN:
            colour[:, at] = paint_skin(q[:, at], p, v)
            bump = noise(*(q[:, at] * 38)) - F(0.5)
            n[:, at] = n[:, at] + (bump * F(0.06))[None]
            gloss[at] = p["shine"]
        elif k == EYE:
            colour[:, at], glint[at] = paint_eye(q[:, at], p, v)
            gloss[at] = 0.05
        elif k == HAIR:
            colour[:, at] = paint_hair(q[:, at], p)
            gloss[at], sharp[at] = 0.12, 9
        elif k == CLOTH:
            x, y, z = q[:, at]
            weave = 0.92 + 0.16 * noise(x * 40, y * 40, z * 40)
            colour[:, at] = np.asarray(p["cloth"], F)[:, None] * weave
            gloss[at] = 0
        else:
            colour[:, at] = np.asarray(p["frame"], F)[:, None]
            gloss[at], sharp[at] = 0.4, 40
    n /= np.sqrt((n * n).sum(0)) + F(1e-9)
    dot = (n * light[:, None]).sum(0)
    lit = np.zeros(q.shape[1], F)
    faces = dot > F(-0.3)  # the rest is dark whatever stands before the lamp
    lit[faces] = shadow((q + n * F(0.012))[:, faces], light, p, v)
    sky = openness(q, n, p, v)
    soft = np.asarray([0.30, 0.16, 0.12], F)[:, None] * (kind == SKIN)
    key = np.clip((dot + soft) / (1 + soft), 0, 1) * (lit + soft * (1 - lit))
    half = light[:, None] - ray
    half /= np.sqrt((half * half).sum(0))
    spec = gloss * np.clip((n * half).sum(0), 0, 1)**sharp * lit
    above = F(0.62) + F(0.38) * n[1]
    lamp = np.asarray(v["lamp"], F)[:, None]
    ambient = np.asarray(v["ambient"], F)[:, None]
    out = colour * (lamp * key + ambient * above * sky) + spec * lamp
    rim = np.clip(1 + (n * ray).sum(0), 0, 1)**3 * F(0.16) * sky
    return out + rim * ambient + glint * F(0.75)


def background(w, h, v):
    """A wall in two tones, softly uneven."""
    y, x = np.mgrid[0:h, 0:w].astype(F)
    x, y = x / max(w, h), y / max(w, h)
    a, b = (np.asarray(c, F)[:, None, None] for c in v["wall"])
    t = np.clip(y * F(0.9) + F(0.25) * (x - F(0.4)), 0, 1)
    c = a + (b - a) * t
    big = noise(x * 5 + v["seed"] * 7, y * 5, y * 0 + 3)
    c = c * (F(0.86) + F(0.28) * big)
    return c * (F(0.98) + F(0.04) * noise(x * 300, y * 300, x * 0))


def draw_head(picture, name, v, scale, cx, cy):
    """One head into picture [3,h,w]: its middle at cx, cy, scale points a
    decimetre."""
    p = person(name)
    _, h, w = picture.shape
    turn = rotation(v["yaw"], v["pitch"], v["roll"])
    light = np.asarray(v["light"], F)
    light = turn.T @ (light / np.sqrt((light * light).sum()))
    reach = 2.1 * scale
    x0, x1 = max(0, int(cx - reach)), min(w, int(cx + reach) + 1)
    y0, y1 = max(0, int(cy - 1.9 * scale)), h
    py, px = np.mgrid[y0:y1, x0:x1].astype(F)
    away = F(8.0)
    # Onto a plane through the head; the middle of the face stands 0.1 lower.
    ray = np.stack([(px + F(0.5) - F(cx)) / F(scale), -(py + F(0.5) - F(cy)) / F(scale) - F(0.1),
                    np.full_like(px, -away)])
    ray /= np.sqrt((ray * ray).sum(0))
    ray = np.einsum("ij,jyx->iyx", turn.T, ray)
    origin = turn.T @ np.asarray([0, 0, away], F)
    # Every fourth ray first: the others start a little before what these met.
    few = np.ascontiguousarray(ray[:, 2::4, 2::4])
    t = march(origin, few.reshape(3, -1), np.full(few[0].size, 5.0, F), p, v)
    t = nearest_around(t.reshape(few.shape[1:])) - F(0.3)
    rows = np.minimum(np.arange(ray.shape[1]) // 4, t.shape[0] - 1)
    columns = np.minimum(np.arange(ray.shape[2]) // 4, t.shape[1] - 1)
    ray = ray.reshape(3, -1)
    t = march(origin, ray, t[rows][:, columns].reshape(-1), p, v)
    at = np.isfinite(t)
    q = origin[:, None] + ray[:, at] * t[at]
    colours = shade(q, ray[:, at], p, v, light)
    box = picture[:, y0:y1, x0:x1].reshape(3, -1)
    box[:, at] = colours
    picture[:, y0:y1, x0:x1] = box.reshape(3, y1 - y0, x1 - x0)


def finish(picture, seed):
    """Film's curve and grain, to bytes."""
    c = np.clip(picture, 0, None)
    c = c * (1 + c / 2.2) / (1 + c)
    c = np.clip(c * 1.12, 0, 1)**(1 / 2.0)
    grain = np.random.default_rng(seed).normal(0, 0.008, c.shape[1:])
    return (np.clip(c + grain, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def draw(name, fine):
    """A picture of PICTURES, as PIL image."""
    spec = PICTURES[name]
    w, h = spec["size"]
    first = view(spec["heads"][0][4])
    picture = background(w * fine, h * fine, first)
    for who, scale, cx, cy, v in spec["heads"]:
        draw_head(picture, who, view(v), scale * fine, cx * fine, cy * fine)
    picture = picture.reshape(3, h, fine, w, fine).mean((2, 4))
    return Image.fromarray(finish(picture, first["seed"]))


def main():
    args = sys.argv[1:]
    fine = 1
    folder = os.path.dirname(os.path.abspath(__file__))
    if "--fine" in args:
        args.remove("--fine")
        fine = 2
    if "-o" in args:
        i = args.index("-o")
        folder = args[i + 1]
        del args[i:i + 2]
    for name in args or PICTURES:
        path = os.path.join(folder, name + ".jpg")
        draw(name, fine).save(path, quality=88)
        print(path, os.path.getsize(path))


if __name__ == "__main__":
    main()
