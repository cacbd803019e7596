"""``burned_in``: how many real films an export withholds or blacks out, and how much of a burned-in text it finds.

Films are looked at as they are and, since public films are small, enlarged three times. Texts are then burned into the
enlarged ones: names, dates and numbers in fonts of this machine, bright and dark, upright and turned, in corners, at
edges and over the lungs. Sizes are px of a film whose shorter side has 1,000. The constants of
``data_specs/cxr/burned_in.py`` were chosen on one half of the films of ``cxr/nih/images`` and ``cxr/nih_more``, in this
order; ``report`` is the other one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.report import table
from data_specs.cxr.burned_in import Writing, find_writing

FONTS = (
    *("dejavu/DejaVuSans.ttf", "dejavu/DejaVuSansMono.ttf", "dejavu/DejaVuSerif-Bold.ttf"),
    *("liberation/LiberationSans-Regular.ttf", "liberation/LiberationSansNarrow-Regular.ttf"),
    "noto/NotoSansMono-Regular.ttf",
)
FONT_FOLDER = Path("/usr/share/fonts/truetype")
TEXTS = ("NGUYEN VAN 1950", "LE THI Z", "Trần Thị Ngọc", "PID 4471902", "21/03/1950 F", "Đặng Hữu Phước", "DOE^JOHN")
SIZES_PX = (10, 12, 14, 20, 30, 45, 60)
CONTRASTS = (30, 45, 60, 110, 255)
"""Grey values over or under the surroundings; 255 stands for white or black ink."""
PLACES = ("corner", "edge", "lungs")
ENLARGED = 3
WHOLE, NOTHING = 0.97, 0.2
"""Share of a text's strokes that is covered, at least or at most: a withheld film counts as covered."""


@dataclass(frozen=True)
class Burned:
    """A film with a text in it.

    Parameters
    ----------
    strokes
        Where the text is, ``(rows, columns) bool``.
    what
        Its size, contrast, place, turn and ink.
    """

    pixels: NDArray[np.uint8]
    strokes: NDArray[np.bool_]
    what: dict[str, str]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks burned_in", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="with frontal films as JPEG or PNG")
    parser.add_argument("--half", choices=["chosen", "report"], default="report")
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--texts", type=int, default=400)
    given = parser.parse_args(arguments)
    paths = [path for each in given.folders for path in sorted(each.rglob("*")) if path.suffix in (".jpg", ".png")]
    random.Random(7).shuffle(paths)  # noqa: S311  a sample, no secret
    half = paths[("chosen", "report").index(given.half) :: 2]
    shown = half[: given.films]
    small, _ = as_they_are(shown, 1)
    large, leaving = as_they_are(shown, ENLARGED)
    print(json.dumps({"films": small, f"films, × {ENLARGED}": large, "texts": texts(leaving, given.texts)}))


def as_they_are(paths: Sequence[Path], enlarged: int) -> tuple[dict[str, object], list[Path]]:
    """How many films are withheld, blacked out in part, or left as they are, and how much is; the films that leave."""
    counts: Counter[str] = Counter()
    areas, leaving = [], []
    for path in paths:
        pixels = _film(path, enlarged)
        found = find_writing(pixels)
        counts["withheld" if found.undecided else "blacked out in part" if found.boxes else "as it is"] += 1
        if not found.undecided:
            leaving.append(path)
            areas.append(float(_covered(found, pixels.shape).mean()))
    rows = [[what, *_share(n, len(paths))] for what, n in sorted(counts.items())]
    table(f"{len(paths)} films, enlarged {enlarged} times", ("", "films", "share", "95 %"), rows)
    percentiles = dict(
        zip(("p50", "p90", "most"), np.percentile(areas or [0.0], [50, 90, 100]).round(3).tolist(), strict=True)
    )
    print(f"area blacked out of those that leave: {percentiles}")
    return {**counts, **percentiles}, leaving


def texts(paths: Sequence[Path], n_texts: int) -> dict[str, list[int]]:
    """By what a text is like: how many there were, how many were found whole, and how many not at all.

    Burned into films that leave without it: of another one, its text says nothing.
    """
    found: dict[str, list[float]] = {}
    for made in _burned(paths, n_texts):
        writing = find_writing(made.pixels)
        covered = 1.0 if writing.undecided else float(_covered(writing, made.pixels.shape)[made.strokes].mean())
        for name in ("all", *(f"{what} {value}" for what, value in made.what.items())):
            found.setdefault(name, []).append(covered)
    counts = {
        name: [len(each), sum(c >= WHOLE for c in each), sum(c <= NOTHING for c in each)]
        for name, each in sorted(found.items())
    }
    rows = [[name, n, *_share(whole, n)[1:], *_share(none, n)[1:]] for name, (n, whole, none) in counts.items()]
    table("texts burned in", ("", "texts", "whole", "95 %", "not at all", "95 %"), rows)
    return counts


def _burned(paths: Sequence[Path], n_texts: int) -> Iterator[Burned]:
    chance = random.Random(len(paths))  # noqa: S311
    made = 0
    while made < n_texts:
        one = _with_text(_film(chance.choice(paths), ENLARGED), chance)
        if one is not None:
            made += 1
            yield one


def _with_text(film: NDArray[np.uint8], chance: random.Random) -> Burned | None:
    """A film with a text of any kind; ``None`` where it would have no room, or nobody could read it."""
    size, contrast, place = chance.choice(SIZES_PX), chance.choice(CONTRASTS), chance.choice(PLACES)
    font = ImageFont.truetype(FONT_FOLDER / chance.choice(FONTS), round(size * min(film.shape) / 1000))
    text, turned, dark = chance.choice(TEXTS), chance.random() < 0.3, chance.random() < 0.4
    _, _, right, bottom = map(int, font.getbbox(text))
    ink = Image.new("L", (right + 4, bottom + 4), 0)
    ImageDraw.Draw(ink).text((2, 2), text, fill=255, font=font)
    if turned:
        ink = ink.transpose(Image.Transpose.ROTATE_90)
    rows, columns = (whole - part for whole, part in zip(film.shape, ink.size[::-1], strict=True))
    if min(rows, columns) < 12:
        return None
    top, left = _place(place, rows, columns, chance)
    alpha = np.zeros(film.shape)
    alpha[top : top + ink.height, left : left + ink.width] = np.asarray(ink) / 255
    around = float(np.median(film[alpha > 0.5]))
    grey = (0.0 if dark else 255.0) if contrast == max(CONTRASTS) else around + (-contrast if dark else contrast)
    pixels = np.clip(film * (1 - alpha) + alpha * grey, 0, 255).astype(np.uint8)
    strokes = (alpha > 0.5) & (np.abs(pixels.astype(np.int16) - film) > 20)
    if not 0 <= grey <= 255 or strokes.sum() < 0.5 * (alpha > 0.5).sum():
        return None
    what = {"size": f"{size:02}", "contrast": f"{contrast:03}", "place": place}
    return Burned(pixels, strokes, what | {"turned": str(turned), "ink": "dark" if dark else "bright"})


def _place(place: str, rows: int, columns: int, chance: random.Random) -> tuple[int, int]:
    """First row and column of a text that leaves so many rows and columns free."""
    if place == "lungs":
        return round(rows * chance.uniform(0.25, 0.7)), round(columns * chance.uniform(0.2, 0.8))
    top, left = chance.choice((5, rows - 5)), chance.choice((5, columns - 5))
    if place == "corner":
        return top, left
    return (top, chance.randrange(columns)) if chance.random() < 0.5 else (chance.randrange(rows), left)


def _film(path: Path, enlarged: int) -> NDArray[np.uint8]:
    film = Image.open(path).convert("L")
    if enlarged > 1:
        film = film.resize((film.width * enlarged, film.height * enlarged), Image.Resampling.BICUBIC)
    return np.asarray(film)


def _covered(found: Writing, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    inside = np.zeros(shape, np.bool_)
    for top, left, bottom, right in found.boxes:
        inside[top:bottom, left:right] = True
    return inside


def _share(n: int, of: int) -> tuple[int, str, str]:
    """A count, its share, and the interval of Wilson."""
    from scipy.stats import binomtest  # noqa: PLC0415

    low, high = binomtest(n, of).proportion_ci(method="wilson")
    return n, f"{n / of:.1%}", f"{low:.1%}-{high:.1%}"
