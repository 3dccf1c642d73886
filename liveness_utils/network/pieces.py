"""Pieces of pictures, changed as instruments and cameras change them: what an encoder is distilled on.

Whole pictures (RGB uint8, any size) come in, batches of 112-px pieces go out, a fixed function of seed and number.
The operators are crude on purpose: they spread the pictures out, they do not claim to be any camera.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from liveness_utils.errors import ModelError

SIDE = 112
LARGEST_SIDE = 640  # of a picture in memory: scaling larger ones down would take most of a piece's time
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def load_pictures(folder: str | os.PathLike, quarters: bool = False) -> list[np.ndarray]:
    """Read a folder's pictures (also those of its folders), scaled down to 640 px where they are larger.

    Args:
        folder: with JPEG, PNG or WebP files.
        quarters: whether quarters of large pictures, and their quarters in turn, are pictures, too.

    Returns:
        (h, w, 3) uint8 RGB each, in the order of the paths.

    Raises:
        ModelError: there are no pictures.
    """
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _SUFFIXES)
    read = [image for image in (cv2.imread(str(p), cv2.IMREAD_COLOR) for p in files) if image is not None]
    if not read:
        raise ModelError(f"{folder} holds no JPEG, PNG or WebP picture: name a folder of pictures.")
    whole = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in read]
    return [_bounded(x) for image in whole for x in (_with_quarters(image) if quarters else [image])]


def _bounded(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, LARGEST_SIDE / max(image.shape[:2]))
    size = (max(SIDE, round(image.shape[1] * scale)), max(SIDE, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _with_quarters(image: np.ndarray) -> list[np.ndarray]:
    half = image.shape[0] // 2, image.shape[1] // 2
    if max(half) < LARGEST_SIDE:
        return [image]
    parts = [image[y : y + half[0], x : x + half[1]] for y in (0, half[0]) for x in (0, half[1])]
    return [image, *(piece for part in parts for piece in _with_quarters(part))]


def batch(sources: Sequence[Sequence[np.ndarray]], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw pieces, from each source alike.

    Args:
        sources: groups of pictures, (h, w, 3) uint8 each.
        count: how many pieces.
        rng: decides everything.

    Returns:
        (count, 112, 112, 3) uint8.
    """
    return np.stack([piece(sources, rng) for _ in range(count)])


def piece(sources: Sequence[Sequence[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """One piece (112, 112, 3) uint8 of a picture of `sources`, as it is (one in ten) or changed."""
    image = _cut(_draw(sources, rng), rng)
    if rng.random() < 0.1:
        return image
    x = image.astype(np.float32)
    if rng.random() < 0.5:
        x = (_as_print if rng.random() < 0.5 else _on_screen)(x, rng)
    if rng.random() < 0.25:
        x = _before(x, _cut(_draw(sources, rng), rng).astype(np.float32), rng)
    return _by_camera(x, rng)


def _draw(sources: Sequence[Sequence[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    source = sources[rng.integers(len(sources))]
    return source[rng.integers(len(source))]


def _cut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of the picture, mirrored at will, turned a little at times, scaled to 112 px."""
    short = min(image.shape[:2])
    share = rng.uniform(0.5, 1.0) if rng.random() < 0.5 else np.exp(rng.uniform(np.log(0.15), 0.0))
    side = int(np.clip(short * share, min(short, 48), short))
    y, x = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
    scaling = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    square = cv2.resize(image[y : y + side, x : x + side], (SIDE, SIDE), interpolation=scaling)
    if rng.random() < 0.5:
        square = np.ascontiguousarray(square[:, ::-1])
    if rng.random() < 0.3:
        turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.normal(0, 12), 1.0)
        square = cv2.warpAffine(square, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    return square


def _wave(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Sine (112, 112) with a period between 1/high and 1/low px in any direction."""
    frequency, angle = np.exp(rng.uniform(np.log(low), np.log(high))), rng.uniform(0, np.pi)
    along = np.arange(SIDE, dtype=np.float32) * np.float32(2 * np.pi * frequency)
    return np.sin(along * np.cos(angle) + (along * np.sin(angle))[:, None] + np.float32(rng.uniform(0, 6.28)))


def _as_print(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Less colour and contrast, the paper's tint, a raster or grain, and a gloss."""
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = grey + rng.uniform(0.5, 1.0) * (x - grey)
    paper, ink = rng.uniform(190, 255) * rng.uniform(0.92, 1.0, 3), rng.uniform(0, 50)
    x = ink + x / 255 * (paper - ink)
    if rng.random() < 0.5:
        x = x * (1 + rng.uniform(0, 0.12) * _wave(rng, 0.15, 0.5) * _wave(rng, 0.15, 0.5))[..., None]
    return (x + rng.uniform(0, 60) * _blob(rng)[..., None]).astype(np.float32)


def _on_screen(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lifted black, a colour of its own, moiré by channel, bands of the refresh, a reflection."""
    lift = rng.uniform(0, 40)
    x = lift + x * (rng.uniform(0.6, 1.1, 3) * (255 - lift) / 255).astype(np.float32)
    if rng.random() < 0.6:
        moire = np.stack([_wave(rng, 0.02, 0.45) for _ in range(3 if rng.random() < 0.5 else 1)], 2)
        x = x * (1 + rng.uniform(0, 0.15) * moire)
    if rng.random() < 0.4:
        rows = np.sin(np.arange(SIDE) * rng.uniform(0.03, 0.6) + rng.uniform(0, 6.28))
        x = x * (1 + rng.uniform(0, 0.15) * rows)[:, None, None]
    return (x + rng.uniform(0, 80) * _blob(rng)[..., None]).astype(np.float32)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A soft spot of light (112, 112), 0..1, somewhere in the piece or beside it."""
    (cy, cx), width = rng.uniform(-0.3, 1.3, 2) * SIDE, np.exp(rng.uniform(np.log(8), np.log(80)))
    rows, columns = (np.exp(-0.5 * ((np.arange(SIDE) - c) / width) ** 2).astype(np.float32) for c in (cy, cx))
    return rows[:, None] * columns


def _before(x: np.ndarray, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The piece as a sheet or screen, with an edge of its own, before another piece."""
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], np.float32)
    inner = (corners - SIDE / 2) * rng.uniform(0.5, 1.1) + SIDE / 2
    placed = (inner + rng.normal(0, 6, (4, 2)) + rng.normal(0, 12, 2)).astype(np.float32)
    way = cv2.getPerspectiveTransform(corners, placed)
    edge, sheet = int(rng.integers(0, 8)), np.full((SIDE, SIDE, 3), rng.uniform(0, 255), np.float32)
    sheet[edge : SIDE - edge, edge : SIDE - edge] = cv2.resize(x, (SIDE - 2 * edge, SIDE - 2 * edge))
    over = cv2.warpPerspective(np.dstack([sheet, np.ones((SIDE, SIDE), np.float32)]), way, (SIDE, SIDE))
    return over[..., :3] + background * (1 - over[..., 3:])


def _by_camera(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light and colour, blur or few pixels, sharpening, noise, and JPEG, each at times."""
    x = _lit(x, rng)
    way = rng.random()
    if way < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 2.0), rng.uniform(0.3, 2.0))
    elif way < 0.6:
        few = int(rng.integers(32, SIDE))
        smaller = cv2.resize(x, (few, few), interpolation=cv2.INTER_AREA)
        x = cv2.resize(smaller, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        x = x + rng.uniform(0.2, 1.5) * (x - cv2.GaussianBlur(x, (0, 0), rng.uniform(0.6, 2.0)))
    if rng.random() < 0.5:
        x = x + _noise(rng)
    image = np.clip(x, 0, 255).astype(np.uint8)
    return _jpeg(image, int(rng.integers(15, 96))) if rng.random() < 0.5 else image


def _lit(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, exposure, white balance, saturation and a fall of light across the piece."""
    table = 255 * np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.3)) * np.exp(rng.normal(0, 0.25))
    balance = np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    x = balance * cv2.LUT(np.clip(x, 0, 255).astype(np.uint8), table.astype(np.float32))
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = grey + np.float32(rng.uniform(0.3, 1.4)) * (x - grey) if rng.random() < 0.6 else x
    if rng.random() < 0.4:
        y, z = rng.uniform(-0.5, 0.5, 2)
        ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
        x = x * np.clip(1 + np.float32(y) * ramp[:, None] + np.float32(z) * ramp, 0.1, 2)[..., None]
    return x


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Noise (112, 112, 3), finer or coarser, of grey or of colour."""
    grains = rng.standard_normal((SIDE, SIDE, 3 if rng.random() < 0.6 else 1), np.float32)
    if rng.random() < 0.4:
        width = rng.uniform(0.5, 1.2)
        grains = cv2.GaussianBlur(grains, (0, 0), width).reshape(grains.shape) * np.float32(2 * width)
    return grains * np.float32(np.exp(rng.uniform(np.log(1), np.log(20))))


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)
