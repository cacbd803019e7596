"""Synthetic pictures that are no chest X-ray: what the gate learns to refuse.

No real picture of another body part is used for training. Every function makes one ``(side, side) uint8`` picture from
a numpy generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]


def to_grey(values: NDArray[np.float64]) -> Picture:
    """Scale to 0 to 255."""
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-9) * 255, dtype=np.uint8)


def radiograph_of_something(rng: np.random.Generator, side: int) -> Picture:
    """A radiograph of random soft shapes and long bones, similar to a limb, a hand, a skull or an abdomen.

    By the law of Beer and Lambert, grey is the exponential of the summed thickness of ellipsoids and tapered rods.
    """
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    thickness = np.zeros((side, side))
    main = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 4)):
        thickness += rng.uniform(0.5, 1.5) * _ellipsoid(x, y, rng, main, long=(0.3, 1.0), wide=(0.1, 0.5))
    for _ in range(rng.integers(0, 25)):
        angle = main + rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, np.pi)
        density = rng.uniform(0.3, 2.5) * rng.choice([1.0, 1.0, 1.0, -0.5])
        thickness += density * _ellipsoid(x, y, rng, angle, long=(0.05, 0.7), wide=(0.015, 0.12))
    if rng.random() < 0.35:
        # Heads, abdomens and pelves are as symmetric as chests.
        thickness = thickness + thickness[:, ::-1]
    thickness = np.clip(thickness, 0, None) + 0.05 * power_noise(rng, side, 1.5)
    exposure = rng.uniform(0.4, 2.5)
    picture = to_grey(1 - np.exp(-exposure * thickness))
    return picture if rng.random() < 0.8 else np.asarray(255 - picture, dtype=np.uint8)


def dead_leaves(rng: np.random.Generator, side: int) -> Picture:
    """Overlapping shapes of all sizes with texture: the statistics of a photograph (Lee et al., IJCV 2001;41:35)."""
    picture = np.full((side, side), float(rng.integers(256)))
    y, x = np.mgrid[0:side, 0:side]
    for _ in range(rng.integers(20, 150)):
        radius = side * 0.5 * rng.power(0.5) * rng.random() + 2
        cx, cy = rng.uniform(0, side, 2)
        if rng.random() < 0.6:
            inside = (x - cx) ** 2 + ((y - cy) * rng.uniform(0.4, 2.5)) ** 2 < radius**2
        else:
            inside = (np.abs(x - cx) < radius) & (np.abs(y - cy) < radius * rng.uniform(0.3, 2))
        picture[inside] = rng.integers(256) + rng.uniform(0, 40) * rng.standard_normal() * (x[inside] / side)
    return to_grey(picture + rng.uniform(0, 30) * power_noise(rng, side, 1.0))


def clouds(rng: np.random.Generator, side: int) -> Picture:
    """Noise with a random spectrum, from fine to coarse."""
    return to_grey(power_noise(rng, side, rng.uniform(0, 3)))


def blank(rng: np.random.Generator, side: int) -> Picture:
    """A uniform grey, a gradient or a vignette, with a little noise."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    kind = rng.integers(3)
    base = [np.zeros_like(x), x * rng.normal() + y * rng.normal(), -np.hypot(x, y)][kind]
    level, contrast = rng.integers(256), rng.uniform(0, 255)
    return np.clip(level + contrast * base + rng.uniform(0, 8) * rng.standard_normal(x.shape), 0, 255).astype(np.uint8)


def page(rng: np.random.Generator, side: int) -> Picture:
    """A page with lines of print or with curves on a grid, like a letter, a form or a picture of an ECG strip."""
    dark_on_light = rng.random() < 0.7
    paper, ink = (255 - int(rng.integers(40)), int(rng.integers(80)))
    image = Image.new("L", (side, side), paper)
    draw = ImageDraw.Draw(image)
    step = int(rng.integers(6, 20))
    if rng.random() < 0.5:
        for at in range(0, side, step):
            draw.line([(at, 0), (at, side)], fill=paper - 40)
            draw.line([(0, at), (side, at)], fill=paper - 40)
        for row in range(rng.integers(1, 6)):
            level = (row + 0.5) * side / 6
            trace = level + rng.uniform(2, 15) * np.cumsum(rng.standard_normal(side)) / np.sqrt(side)
            trace[:: int(rng.integers(15, 40))] -= rng.uniform(5, 30)
            draw.line(list(zip(range(side), trace.tolist(), strict=True)), fill=ink)
    else:
        for top in range(step, side - step, step):
            at = step
            while at < side - step and rng.random() > 0.05:
                width = int(rng.integers(3, 30))
                draw.rectangle([at, top, min(at + width, side), top + step // 2], fill=ink)
                at += width + int(rng.integers(3, 8))
    picture = np.asarray(image)
    return picture if dark_on_light else np.asarray(255 - picture, dtype=np.uint8)


def pattern(rng: np.random.Generator, side: int) -> Picture:
    """Stripes, checks or rings, like test patterns, grids or cloth."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(1, 30)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(3)
    wave = [
        np.sin(2 * np.pi * frequency * along),
        np.sin(2 * np.pi * frequency * along) * np.sin(2 * np.pi * frequency * across),
        np.sin(2 * np.pi * frequency * np.hypot(x - rng.normal() / 4, y - rng.normal() / 4)),
    ][kind]
    return to_grey((np.sign(wave) if rng.random() < 0.5 else wave) + rng.uniform(0, 0.5) * rng.standard_normal(x.shape))


KINDS: tuple[tuple[Callable[[np.random.Generator, int], Picture], float], ...] = (
    (radiograph_of_something, 0.5),
    (dead_leaves, 0.2),
    (clouds, 0.08),
    (blank, 0.07),
    (page, 0.08),
    (pattern, 0.07),
)


def draw(rng: np.random.Generator, side: int) -> Picture:
    """One picture; its kind is drawn with the probabilities in :data:`KINDS`."""
    kinds, shares = zip(*KINDS, strict=True)
    return kinds[rng.choice(len(kinds), p=np.array(shares))](rng, side)


def spoil(film: Picture, rng: np.random.Generator) -> Picture:
    """A chest film changed so that it is no upright frontal film: turned, upside down, a detail, or shuffled pieces."""
    kind = rng.integers(4)
    if kind == 0:
        return np.ascontiguousarray(np.rot90(film, int(rng.integers(1, 4))))
    return np.ascontiguousarray(film[::-1]) if kind == 1 else piece(film, rng)


def piece(film: Picture, rng: np.random.Generator) -> Picture:
    """A detail of a chest film, or its pieces in another order."""
    side = len(film)
    if rng.random() < 0.5:
        part = int(side * rng.uniform(0.15, 0.4))
        top, left = rng.integers(0, side - part, 2)
        detail = Image.fromarray(film[top : top + part, left : left + part])
        return np.asarray(detail.resize((side, side), Image.Resampling.BILINEAR))
    pieces = int(rng.integers(2, 5))
    size = side // pieces
    tiles = [film[r * size : (r + 1) * size, c * size : (c + 1) * size] for r in range(pieces) for c in range(pieces)]
    order = rng.permutation(len(tiles))
    order = order[::-1] if (order == np.arange(len(tiles))).all() else order
    rows = [np.hstack([tiles[i] for i in order[r * pieces : (r + 1) * pieces]]) for r in range(pieces)]
    return np.asarray(Image.fromarray(np.vstack(rows)).resize((side, side)))


def framed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Now and then with a marker, and with the border that collimation or a scan leaves."""
    side = len(picture)
    picture = picture.copy()
    if rng.random() < 0.4:
        top, left = rng.integers(0, side - 4, 2)
        picture[top : top + int(rng.integers(1, 4)), left : left + int(rng.integers(1, 5))] = rng.integers(200, 256)
    if rng.random() < 0.3:
        at = int(rng.integers(1, max(2, side // 10)))
        edge = [
            (slice(None), slice(0, at)),
            (slice(None), slice(-at, None)),
            (slice(0, at), slice(None)),
            (slice(-at, None), slice(None)),
        ]
        for where in edge:
            if rng.random() < 0.5:
                picture[where] = rng.choice([0, 255, 20])
    return picture


def _ellipsoid(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    rng: np.random.Generator,
    angle: float,
    *,
    long: tuple[float, float],
    wide: tuple[float, float],
) -> NDArray[np.float64]:
    """Projected thickness of an ellipsoid or a tapered rod at a random place."""
    cx, cy = rng.uniform(-0.4, 0.4, 2)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    a, b = rng.uniform(*long), rng.uniform(*wide)
    v = v / (1 + rng.uniform(-0.5, 0.5) * u / a)
    return np.sqrt(np.clip(1 - np.abs(u / a) ** rng.choice([2, 4, 8]) - (v / b) ** 2, 0, None))


def power_noise(rng: np.random.Generator, side: int, exponent: float) -> NDArray[np.float64]:
    """Gaussian noise with a spectrum of 1/f^exponent, deviation 1."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1 / side
    noise = np.fft.irfft2(spectrum / frequency**exponent, s=(side, side))
    return np.asarray((noise - noise.mean()) / noise.std())
