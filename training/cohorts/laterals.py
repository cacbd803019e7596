"""Pictures like lateral chest films, made by rule and from frontal films: what the gate learns to refuse as well.

No lateral film may be trained on: the only ones at hand have a licence for tests. Every function makes one
``(side, side) uint8`` picture from a numpy generator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.cohorts.negatives import Picture, framed, power_noise, to_grey

Plane = NDArray[np.float64]


def projected(rng: np.random.Generator, side: int) -> Picture:
    """A thorax seen from its side: depths of body, lungs, heart, spine, ribs and arms, summed and shown as grey.

    The proportions are drawn widely around those of an adult: both lungs lie over each other, the heart in front and
    below, the spine behind, the diaphragm rises towards the front, the arms are over the apex.
    """
    y, z = np.mgrid[0:side, 0:side] / side
    z = z - 0.5
    turn = np.deg2rad(rng.normal(0, 7))
    y, z = y + np.tan(turn) * z, z - np.tan(turn) * (y - 0.5)
    middle = rng.normal(0, 0.05) + rng.normal(0, 0.15) * (y - 0.5) + rng.normal(0, 0.3) * (y - 0.5) ** 2
    waist = 1 - rng.uniform(0, 0.5) * np.clip(rng.uniform(0.1, 0.35) - y, 0, None) / 0.3
    half_depth = rng.uniform(0.24, 0.55) * waist * (1 + rng.normal(0, 0.15) * (y - 0.5))
    u = (z - middle) / half_depth  # -1 in front, 1 behind
    u = np.where(u < 0, u / (1 + _bump(y, rng.uniform(0.5, 0.7), 0.12) * rng.choice([0, 0, 0.25])), u)  # a breast
    body = _dome(u, rng.uniform(2, 5))
    front, behind = -rng.uniform(0.7, 0.92), rng.uniform(0.7, 0.95)
    v = (u - (front + behind) / 2) / ((behind - front) / 2)
    apex = rng.uniform(0.02, 0.3)
    floor, slope, arch = rng.uniform(0.6, 0.95), rng.uniform(0.0, 0.2), rng.uniform(0.0, 0.25)
    shape = rng.uniform(2, 6)
    lungs = np.zeros_like(y)
    for shift in (0.0, rng.uniform(-0.05, 0.05)):
        bottom = floor + shift + slope * v + arch * (v - rng.uniform(-0.4, 0.2)) ** 2
        top = apex + rng.uniform(0, 0.3) * np.abs(v) ** 3
        inside = _edge(bottom - y, rng.uniform(0.005, 0.03)) * _edge(y - top, rng.uniform(0.02, 0.1))
        lungs += 0.5 * inside * _dome(v, shape)
    heart = _blob(
        u, y, rng.uniform(-0.6, 0.0), floor - rng.uniform(0.02, 0.25), rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.28)
    )
    spine_at = behind - rng.uniform(0.05, 0.4)
    spine = np.exp(-(((u - spine_at) / rng.uniform(0.06, 0.16)) ** 2))
    spine *= 1 + rng.uniform(0, 0.4) * np.sin(2 * np.pi * y * rng.uniform(8, 18) + rng.uniform(0, 6))
    ribs = np.maximum(
        0, np.sin(2 * np.pi * (y + rng.uniform(-0.5, 0.5) * u + rng.uniform(-0.3, 0.3) * u**2) * rng.uniform(6, 14))
    )
    arms = _edge(rng.uniform(0.05, 0.35) + rng.normal(0, 0.3) * u - y, 0.05)
    texture = power_noise(rng, side, rng.uniform(1.0, 2.2))
    hilum = _blob(u, y, rng.uniform(-0.2, 0.3), rng.uniform(0.35, 0.6), rng.uniform(0.1, 0.3), rng.uniform(0.05, 0.15))
    sternum = np.exp(-(((u - front) / 0.05) ** 2)) * (y < floor)
    depth = body * (
        1
        - rng.uniform(0.45, 0.95) * lungs * (1 - rng.uniform(0.3, 0.9) * heart)
        + rng.uniform(0, 0.4) * spine * (1 - rng.uniform(0, 1) * y)
        + rng.uniform(0, 0.12) * ribs * lungs
        + rng.uniform(0, 0.6) * arms
        + rng.uniform(0, 0.25) * sternum
        + rng.uniform(0, 0.3) * hilum * lungs
        + rng.uniform(0.02, 0.12) * texture * (0.3 + lungs)
    )
    if rng.random() < 0.4:  # an opacity or fluid
        depth += (
            rng.uniform(0.1, 0.6)
            * lungs
            * _blob(u, y, rng.uniform(-0.7, 0.7), rng.uniform(0.2, 0.9), rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.3))
        )
    if rng.random() < 0.5:  # a table, clothes or scattered rays outside the body
        depth = depth + rng.uniform(0, 0.25) * (1 - body) * (0.5 + rng.random() * z)
    shown = depth if rng.random() < 0.5 else 1 - np.exp(-rng.uniform(0.6, 2.5) * np.clip(depth, 0, None))
    low, high = np.quantile(shown, [rng.uniform(0, 0.05), rng.uniform(0.93, 1)])
    shown = np.clip(shown, low, max(high, low + 1e-3))
    picture = to_grey(shown)
    return framed(picture if rng.random() < 0.5 else np.ascontiguousarray(picture[:, ::-1]), rng)


def draw(film: Picture, rng: np.random.Generator) -> Picture:
    """One picture: projected, with the grain of a frontal film or without, or the frontal film folded."""
    side = len(film)
    if rng.random() < 0.3:
        return folded(film, rng)
    picture = projected(rng, side)
    if rng.random() < 0.35:
        grain = folded(film, rng).astype(np.float64)
        grain = (grain - grain.mean()) / (grain.std() + 1)
        body = picture > 20
        picture = np.clip(picture + body * rng.uniform(8, 30) * grain, 0, 255).astype(np.uint8)
    return picture


def folded(film: Picture, rng: np.random.Generator) -> Picture:
    """A frontal film folded at its middle, or one half of it: one lung field, or both over each other, spine aside."""
    side = len(film)
    middle = int(side * rng.uniform(0.42, 0.58))
    spread = rng.uniform(0.0, 0.12)  # how much of the other side of the mediastinum is kept
    reach = int(side * spread)
    halves = film[:, : middle + reach], film[:, max(0, middle - reach) :][:, ::-1]
    width = int(side * rng.uniform(0.55, 1.0))
    one, other = (
        np.asarray(Image.fromarray(h).resize((width, side), Image.Resampling.BILINEAR), float) for h in halves
    )
    share = rng.choice([0.0, 1.0, rng.uniform(0.3, 0.7)], p=[0.25, 0.25, 0.5])
    shown = share * one + (1 - share) * other
    y, x = np.mgrid[0:side, 0:width] / np.array([side, width]).reshape(2, 1, 1)
    if rng.random() < 0.5:  # a heart in front, where these halves have the side of the chest
        shown = shown + rng.uniform(20, 90) * _blob(
            x, y, rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.4), rng.uniform(0.1, 0.25)
        )
    if rng.random() < 0.7:  # the back lets light through: the spine is not at the edge of a film
        shown = shown * np.clip((1 - x) / rng.uniform(0.02, 0.25), 0, 1) ** rng.uniform(0.3, 1)
    left = int(rng.integers(0, side - width + 1))
    canvas = np.full((side, side), float(rng.choice([0, rng.uniform(0, 60), np.median(shown)])))
    canvas[:, left : left + width] = np.clip(shown, 0, 255)
    picture = canvas.astype(np.uint8)
    return framed(picture if rng.random() < 0.5 else np.ascontiguousarray(picture[:, ::-1]), rng)


def _dome(u: Plane, power: float) -> Plane:
    """Depth of a rounded body across its width, 0 outside -1 to 1."""
    return np.asarray(np.sqrt(np.clip(1 - np.abs(u) ** power, 0, None)))


def _edge(distance: Plane, softness: float) -> Plane:
    """From 0 to 1 where ``distance`` becomes positive."""
    return np.asarray(np.clip(distance / softness + 0.5, 0, 1))


def _bump(at: Plane, centre: float, width: float) -> Plane:
    return np.asarray(np.exp(-(((at - centre) / width) ** 2)))


def _blob(u: Plane, y: Plane, at_u: float, at_y: float, width: float, height: float) -> Plane:
    """An ellipse with soft edges."""
    return np.asarray(np.clip(1.5 - 1.5 * np.hypot((u - at_u) / width, (y - at_y) / height), 0, 1))
