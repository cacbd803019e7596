"""What may change at a scanner, done to films that were taken before: exposure, window, compression, sharpness."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
SEED = 5
"""Of the noise of a lower dose."""


def gamma(exponent: float) -> Callable[[Pixels], Pixels]:
    """Another curve from exposure to grey: above 1 darker, below 1 brighter."""
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return lambda pixels: table[pixels]


def exposed(factor: float) -> Callable[[Pixels], Pixels]:
    """Every grey level times ``factor``; what would be brighter than white is white."""
    table = np.clip(np.rint(factor * np.arange(256)), 0, 255).astype(np.uint8)
    return lambda pixels: table[pixels]


def noisy(sd: float) -> Callable[[Pixels], Pixels]:
    """A lower dose: noise of ``sd`` grey levels."""
    random = np.random.default_rng(SEED)
    return lambda pixels: np.clip(np.rint(pixels + random.normal(0, sd, pixels.shape)), 0, 255).astype(np.uint8)


def windowed(low: float, high: float) -> Callable[[Pixels], Pixels]:
    """Another window: the grey levels from ``low`` to ``high`` are spread over all; the rest is black or white."""
    table = np.clip(np.rint(255 * (np.arange(256) - low) / (high - low)), 0, 255).astype(np.uint8)
    return lambda pixels: table[pixels]


def compressed(quality: int) -> Callable[[Pixels], Pixels]:
    """Written as JPEG with this quality, and read again."""

    def write(pixels: Pixels) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return write


def blurred(radius_px: float) -> Callable[[Pixels], Pixels]:
    """Less sharp, by a Gaussian of this standard deviation."""
    return lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius_px)))


def resized(factor: float) -> Callable[[Pixels], Pixels]:
    """Fewer pixels, as another detector or another archive sends them."""

    def resize(pixels: Pixels) -> Pixels:
        rows, columns = (round(factor * side) for side in pixels.shape)
        return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR))

    return resize


UNCHANGED = "none"
CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    UNCHANGED: lambda pixels: pixels,
    "exposure: grey x 0.9": exposed(0.9),
    "exposure: grey x 0.95": exposed(0.95),
    "exposure: noise of 2 grey levels": noisy(2),
    "curve: gamma 0.9": gamma(0.9),
    "curve: gamma 1.05": gamma(1.05),
    "curve: gamma 1.1": gamma(1.1),
    "window: 10 to 245 of 255": windowed(10, 245),
    "window: 5 to 250 of 255": windowed(5, 250),
    "window: -20 to 275 of 255": windowed(-20, 275),
    "compression: JPEG quality 50": compressed(50),
    "compression: JPEG quality 75": compressed(75),
    "compression: JPEG quality 90": compressed(90),
    "sharpness: blur of 0.3 px": blurred(0.3),
    "sharpness: blur of 0.5 px": blurred(0.5),
    "size: 0.9 of the pixels a side": resized(0.9),
}
"""By name; each is small: about what a reader of films would not remark on."""
