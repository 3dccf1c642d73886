"""Scenes: rooms and streets with real depth, and the light that falls on faces in them.
**scenes** → simulate. A room is a set of textured rectangles for `render`; a light is a `Lighting` in units of its lux.
Both are drawn from a generator alone; every texture is painted here by formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from liveness_utils.errors import SimulationError
from liveness_utils.render import Light, Lighting, Rect, Room, build_room, hemisphere

_TEXELS_PER_METRE = 90


# ---------------------------------------------------------------- light


def black_body(cct: float) -> np.ndarray:
    """Linear RGB of a black body, luminance 1.

    Args:
        cct: colour temperature in kelvin, 1800 to 15000.

    Returns:
        (3,) float64.

    Source: Planck's law at 610, 550 and 465 nm, relative to 6500 K (D65 taken as white).
    """
    wave = np.array([610e-9, 550e-9, 465e-9])
    power = 1.0 / (wave**5 * np.expm1(0.014388 / (wave * cct)))
    white = 1.0 / (wave**5 * np.expm1(0.014388 / (wave * 6500.0)))
    rgb = power / white
    return rgb / (rgb @ (0.2126, 0.7152, 0.0722))


@dataclass(frozen=True)
class LightKind:
    """Ranges from which a light of one kind is drawn.

    lux: on the face. cct: of the key light, K. ambient: share of the light that comes from everywhere.
    azimuth: of the key from the camera's side, degrees, its sign drawn. elevation: degrees. size: 0 hard .. 1 soft.
    room: what the background receives against the face. fill: colour temperature of the ambient light, K.
    """

    lux: tuple[float, float]
    cct: tuple[float, float]
    ambient: tuple[float, float]
    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    size: tuple[float, float]
    room: tuple[float, float]
    fill: tuple[float, float]


LIGHTS: dict[str, LightKind] = {
    "daylight_window": LightKind(
        (500, 2500), (5200, 6500), (0.35, 0.5), (35, 75), (10, 35), (0.4, 0.7), (0.5, 0.9), (5500, 7500)
    ),
    "overcast": LightKind(
        (3000, 12000), (6300, 7500), (0.75, 0.9), (0, 60), (50, 80), (0.7, 1.0), (0.8, 1.1), (6500, 8000)
    ),
    "sunny": LightKind(
        (15000, 50000), (5200, 5800), (0.25, 0.4), (10, 70), (35, 60), (0.02, 0.05), (0.7, 1.1), (7000, 9000)
    ),
    "office": LightKind((300, 600), (3800, 4500), (0.5, 0.65), (0, 40), (50, 75), (0.4, 0.7), (0.8, 1.1), (3800, 5000)),
    "tungsten": LightKind(
        (100, 280), (2600, 3000), (0.4, 0.6), (10, 60), (25, 60), (0.2, 0.5), (0.5, 0.9), (2600, 3200)
    ),
    "one_sided": LightKind(
        (150, 900), (3500, 6000), (0.12, 0.22), (65, 90), (5, 30), (0.2, 0.5), (0.3, 0.6), (4000, 6500)
    ),
    "backlit": LightKind(
        (150, 600), (5500, 6500), (0.55, 0.75), (130, 165), (15, 45), (0.3, 0.6), (1.6, 2.6), (5500, 7000)
    ),
    "dim": LightKind((12, 45), (2700, 4000), (0.5, 0.7), (10, 70), (20, 60), (0.3, 0.6), (0.5, 0.9), (2800, 4200)),
    "screen_lit": LightKind(
        (15, 60), (6500, 8500), (0.2, 0.35), (0, 15), (-25, 0), (0.5, 0.8), (0.15, 0.3), (3000, 5000)
    ),
    "street_night": LightKind(
        (8, 30), (2000, 4200), (0.3, 0.45), (20, 80), (45, 75), (0.05, 0.15), (0.4, 0.8), (2200, 4500)
    ),
    "mixed": LightKind((200, 900), (5500, 6800), (0.35, 0.5), (35, 80), (10, 35), (0.3, 0.6), (0.6, 1.0), (2700, 3300)),
    "overhead": LightKind(
        (200, 700), (3000, 5000), (0.25, 0.4), (0, 40), (65, 85), (0.1, 0.3), (0.7, 1.1), (3500, 5500)
    ),
    "ring_light": LightKind(
        (250, 800), (4200, 6000), (0.15, 0.3), (0, 8), (-5, 10), (0.3, 0.5), (0.2, 0.5), (3000, 5500)
    ),
    "golden_hour": LightKind(
        (1500, 8000), (2800, 3800), (0.3, 0.45), (30, 80), (6, 18), (0.04, 0.1), (0.6, 1.1), (6500, 9000)
    ),
}


# What shines behind the face by itself, against the light on the face: a night has a dark sky.
SKY = {"street_night": 0.03, "dim": 0.08, "screen_lit": 0.06, "tungsten": 0.3, "ring_light": 0.5, "one_sided": 0.6}


def lighting(kind: str, rng: np.random.Generator) -> Lighting:
    """Draw a light.

    Args:
        kind: a key of `LIGHTS`.
        rng: source of everything random.

    Returns:
        Lighting that gives a white diffuser facing the camera about 1.0.

    Raises:
        SimulationError: unknown kind.
    """
    if kind not in LIGHTS:
        raise SimulationError(f"light {kind!r} is unknown; choose one of {', '.join(LIGHTS)}.")
    k = LIGHTS[kind]
    lux = float(np.exp(rng.uniform(*np.log(k.lux))))
    cct, fill = rng.uniform(*k.cct), rng.uniform(*k.fill)
    share = rng.uniform(*k.ambient)
    azimuth = np.radians(rng.uniform(*k.azimuth)) * rng.choice([-1, 1])
    elevation = np.radians(rng.uniform(*k.elevation))
    towards = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    key = (1.0 - share) / max(towards[2], 0.45) * black_body(cct)
    tilt = rng.uniform(0.15, 0.45)
    sky, ground = share * (1 + tilt) * black_body(fill), share * (1 - tilt) * black_body(fill) * (1.03, 1.0, 0.94)
    size = float(rng.uniform(*k.size))
    lamps = [Light(towards, key.astype(np.float32), size=size, shadow=True)]
    if rng.random() < 0.5:
        other = np.array([-np.sign(towards[0]) * rng.uniform(0.4, 1.0), rng.uniform(0, 0.7), rng.uniform(-0.6, 0.8)])
        lamps.append(Light(other / np.linalg.norm(other), (0.18 * key).astype(np.float32), size=0.6))
    gain = float(rng.uniform(*k.room))
    shine = SKY.get(kind, 1.0) * float(rng.uniform(0.7, 1.2))
    return Lighting(hemisphere(sky, ground), tuple(lamps), lux, (gain, gain, gain), shine, kind, float(cct))


# ---------------------------------------------------------------- textures, linear albedo


def _noise(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    small = rng.normal(0, 1, (max(int(h / scale), 2) + 2, max(int(w / scale), 2) + 2)).astype(np.float32)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)


def _clouded(rng: np.random.Generator, h: int, w: int, colour, amount: float = 0.05) -> np.ndarray:
    field = sum(_noise(rng, h, w, s) * f for s, f in ((60, 0.5), (18, 0.3), (4, 0.2), (1.2, 0.15)))
    return np.clip(np.asarray(colour, np.float32) * (1 + amount * field[..., None]), 0.005, 0.95).astype(np.float32)


def _tone(rng: np.random.Generator, low: float = 0.1, high: float = 0.75, chroma: float = 0.3) -> np.ndarray:
    """A paint. Colours of things vary most between blue and yellow, as daylight's do, and little between red and green."""
    value, blue, red = rng.uniform(low, high), rng.normal(0.15, 1.0), rng.normal(0, 0.25)
    return np.clip(
        value * np.exp(chroma * (blue * np.array([-0.7, 0.0, 0.9]) + red * np.array([1, -0.5, 0]))), 0.02, 0.9
    )


def _weathered(rng: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    """Structure at all scales, its power falling with 1/f², and light that pools: no surface of a photograph is flat."""
    h, w = texture.shape[:2]
    cells = [max(h, w) / 2**k for k in range(1, 9) if max(h, w) / 2**k >= 1.5]
    field = sum(_noise(rng, h, w, c) * 0.5**k for k, c in enumerate(cells))
    out = texture.astype(np.float32)
    out[..., :3] *= np.exp(rng.uniform(0.08, 0.20) * field)[..., None]
    return np.clip(cv2.GaussianBlur(out, (0, 0), 0.6), 0.004, 1.6)


def _plaster(rng, h, w):
    wall = _clouded(rng, h, w, _tone(rng, 0.35, 0.75, 0.3), 0.03)
    return wall * np.linspace(1.0, rng.uniform(0.8, 1.0), w, dtype=np.float32)[None, :, None]


def _wallpaper(rng, h, w):
    wall, period = _clouded(rng, h, w, _tone(rng, 0.25, 0.7, 0.4), 0.02), rng.integers(8, 30)
    y, x = np.mgrid[:h, :w]
    kind = rng.integers(3)
    wave = np.sin(2 * np.pi * x / period)
    pattern = (wave > 0, wave * np.sin(2 * np.pi * y / period) > 0.4, np.abs((x + y) % period - period / 2) < 2)[kind]
    return wall * np.where(pattern, rng.uniform(0.7, 0.9), 1.0)[..., None].astype(np.float32)


def _brick(rng, h, w):
    bh, bw = 7, 20
    y, x = np.mgrid[:h, :w]
    row = y // bh
    column = (x + (row % 2) * bw // 2) // bw
    shade = np.exp(0.18 * rng.normal(0, 1, (row.max() + 1, column.max() + 1)))[row, column]
    base = np.array([0.25, 0.175, 0.135]) * rng.uniform(0.7, 1.4) if rng.random() < 0.7 else np.full(3, 0.55)
    mortar = ((y % bh) == 0) | (((x + (row % 2) * bw // 2) % bw) == 0)
    wall = np.where(mortar[..., None], 0.5 * base + 0.15, base * shade[..., None])
    return np.clip(wall * (1 + 0.08 * _noise(rng, h, w, 1.5)[..., None]), 0.01, 0.9).astype(np.float32)


def _tiles(rng, h, w):
    size = int(rng.integers(9, 22))
    y, x = np.mgrid[:h, :w]
    shade = np.exp(0.06 * rng.normal(0, 1, (h // size + 1, w // size + 1)))[y // size, x // size]
    joint = ((y % size) == 0) | ((x % size) == 0)
    tone = _tone(rng, 0.4, 0.85, 0.25)
    return np.where(joint[..., None], 0.65 * tone, tone * shade[..., None]).astype(np.float32)


def _wood(rng, h, w):
    grain = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), 0.8, sigmaY=25)
    planks = np.exp(0.12 * rng.normal(0, 1, w // 14 + 1))[np.arange(w) // 14]
    base = np.array([0.33, 0.23, 0.15]) * rng.uniform(0.35, 1.5)
    return np.clip(base * planks[None, :, None] * (1 + 1.2 * grain[..., None]), 0.01, 0.8).astype(np.float32)


def _books(rng, h, w):
    out = np.full((h, w, 3), 0.03, np.float32)
    shelf, top = int(rng.integers(26, 36)), 0
    wood = np.array([0.23, 0.16, 0.10], np.float32) * rng.uniform(0.4, 2.0)
    while top + shelf <= h:
        x = 2
        while x < w - 3:
            width, tall = int(rng.integers(2, 7)), int(shelf * rng.uniform(0.6, 0.92))
            if rng.random() < 0.92:
                out[top + shelf - tall : top + shelf, x : x + width] = _tone(rng, 0.05, 0.35, 0.5)
                out[top + shelf - tall // 2 : top + shelf - tall // 2 + 2, x : x + width] *= rng.uniform(0.6, 1.6)
            x += width + int(rng.random() < 0.15)
        out[top + shelf - 2 : top + shelf + 1] = wood
        top += shelf
    return np.clip(out, 0.01, 0.9)


def _curtain(rng, h, w):
    phase = np.cumsum(np.exp(rng.normal(0, 0.3, w)) * 2 * np.pi / rng.uniform(9, 16))
    folds = 0.65 + 0.35 * np.sin(phase)
    return _clouded(rng, h, w, _tone(rng, 0.1, 0.7, 0.5), 0.03) * folds[None, :, None].astype(np.float32)


def _cupboards(rng, h, w):
    out, size = _clouded(rng, h, w, _tone(rng, 0.25, 0.8, 0.35), 0.02), int(rng.integers(30, 55))
    for x in range(0, w, size):
        out[:, x : x + 1] *= 0.4
        out[h // 3 : h // 3 + 8, min(x + size - 5, w - 2) : min(x + size - 3, w)] = 0.3
    out[h // 2 : h // 2 + 5] = _tone(rng, 0.05, 0.4, 0.2)
    return out.astype(np.float32)


def _picture(rng, h, w):
    out = np.empty((h, w, 3), np.float32)
    out[:] = _tone(rng, 0.03, 0.5, 0.4)
    edge = max(h // 14, 2)
    inner = _tone(rng, 0.2, 0.7, 0.4) * (1 + 0.4 * _noise(rng, h, w, 12)[..., None])
    inner = np.where(_noise(rng, h, w, 20)[..., None] > 0.3, _tone(rng, 0.1, 0.8, 0.6), inner)
    out[edge:-edge, edge:-edge] = inner[edge:-edge, edge:-edge]
    return np.clip(out, 0.01, 0.9).astype(np.float32)


def _door(rng, h, w):
    out = _clouded(rng, h, w, _tone(rng, 0.15, 0.8, 0.15), 0.02)
    for y0, y1 in ((0.08, 0.45), (0.55, 0.94)):
        cv2.rectangle(
            out, (w // 6, int(h * y0)), (5 * w // 6, int(h * y1)), tuple(float(c) * 0.7 for c in out[0, 0]), 2
        )
    cv2.circle(out, (w - 7, h // 2), 3, (0.5, 0.45, 0.3), -1)
    return out


def _plant(rng, h, w):
    out = np.zeros((h, w, 4), np.float32)
    for _ in range(70):
        base = np.array([w / 2, h * 0.8])
        tip = base + (rng.normal(0, w * 0.28), -abs(rng.normal(0, h * 0.45)))
        colour = np.array([0.075, 0.12, 0.055]) * np.exp(rng.normal(0, 0.35))
        centre = tuple(int(c) for c in (0.3 * base + 0.7 * tip))
        axes = (int(max(np.linalg.norm(tip - base) * 0.28, 3)), int(rng.integers(2, 6)))
        angle = float(np.degrees(np.arctan2(*(tip - base)[::-1])))
        cv2.ellipse(out, centre, axes, angle, 0, 360, (*colour.tolist(), 1.0), -1)
    cv2.rectangle(out, (w // 3, int(h * 0.78)), (2 * w // 3, h - 1), (*_tone(rng, 0.1, 0.6, 0.3).tolist(), 1.0), -1)
    return out


def _sky(rng, h, w):
    up = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    clear = np.array([0.50, 0.65, 0.92]) * (1 - up) + np.array([0.85, 0.9, 0.98]) * up
    cloud = np.clip(0.5 + 0.5 * (_noise(rng, h, w, 40) + 0.5 * _noise(rng, h, w, 14)), 0, 1)[..., None]
    return (clear * (1 - cloud) + 0.95 * cloud).astype(np.float32)


def _facade(rng, h, w):
    out = _clouded(rng, h, w, _tone(rng, 0.15, 0.55, 0.25), 0.06)
    stepx, stepy = int(rng.integers(14, 24)), int(rng.integers(18, 30))
    for y in range(5, h - stepy, stepy):
        for x in range(5, w - stepx, stepx):
            out[y : y + stepy - 8, x : x + stepx - 6] = _tone(rng, 0.02, 0.4, 0.2)
            out[y + stepy - 8 : y + stepy - 7, x - 1 : x + stepx - 5] = 0.5
    return out


def _trees(rng, h, w):
    """Foliage above a strip of ground: leaves where noise of several scales is dense, lit from above."""
    dense = sum(_noise(rng, h, w, cell) * part for cell, part in ((h / 4, 0.7), (16, 0.5), (6, 0.4), (2, 0.4)))
    shade = np.exp(0.45 * _noise(rng, h, w, 9) + 0.30 * _noise(rng, h, w, 2) + 0.35 * dense)
    down = np.linspace(0, 1, h, dtype=np.float32)[:, None]
    out = np.ones((h, w, 4), np.float32)
    out[..., :3] = np.array([0.075, 0.095, 0.050]) * shade[..., None]
    out[..., 3] = dense + 4.0 * (down - 0.25) > 0
    out[int(h * 0.75) :] = (*(np.array([0.2, 0.2, 0.18]) * rng.uniform(0.5, 1.5)), 1.0)
    return out


def _window(rng, h, w):
    out = _sky(rng, h, w) * rng.uniform(0.8, 1.6)
    trees = _trees(rng, h, w) if rng.random() < 0.6 else None
    if trees is not None:
        out = np.where(trees[..., 3:] > 0.5, trees[..., :3] * 1.5, out)
    for x in (0, w // 2, w - 3):
        out[:, x : x + 3] = 0.5
    for y in (0, h // 2, h - 3):
        out[y : y + 3] = 0.5
    return out.astype(np.float32)


def _screen(rng, h, w):
    out = np.full((h, w, 3), 0.03, np.float32)
    out[3:-3, 3:-3] = _tone(rng, 0.1, 0.8, 0.7)
    for y in range(8, h - 6, 4):
        out[y, 6 : 6 + int(rng.uniform(0.2, 0.85) * (w - 12))] *= rng.uniform(0.4, 1.6)
    return out


def _ground(rng, h, w):
    base = np.array([0.16, 0.16, 0.17]) if rng.random() < 0.6 else np.array([0.11, 0.14, 0.08])
    return _clouded(rng, h, w, base * rng.uniform(0.6, 1.5), 0.15)


def _hedge(rng, h, w):
    return np.ascontiguousarray(_trees(rng, 4 * h // 3 + 1, w)[:h, :, :3])


def _floor(rng, h, w):
    return (_wood if rng.random() < 0.5 else _tiles if rng.random() < 0.5 else _plaster)(rng, h, w)


def _car_seat(rng, h, w):
    out = np.zeros((h, w, 4), np.float32)
    colour = _tone(rng, 0.03, 0.25, 0.15)
    cv2.rectangle(out, (w // 8, h // 3), (7 * w // 8, h - 1), (*colour.tolist(), 1.0), -1)
    cv2.ellipse(out, (w // 2, h // 5), (w // 5, h // 7), 0, 0, 360, (*(colour * 1.2).tolist(), 1.0), -1)
    for x in range(w // 4, 3 * w // 4, 8):
        out[h // 3 :, x, :3] *= 0.6
    return out


# ---------------------------------------------------------------- rooms


@dataclass(frozen=True)
class RoomKind:
    """What a kind of room is built from: textures of walls, things in front of them, and its size in metres."""

    back: tuple[Callable, ...]
    side: tuple[Callable, ...]
    things: tuple[tuple[str, Callable, tuple[float, float]], ...]
    depth: tuple[float, float]
    width: tuple[float, float]
    outdoors: bool = False


_PICTURE = ("hung", _picture, (0.5, 0.7))
_WINDOW = ("window", _window, (1.0, 1.2))
_PLANT = ("standing", _plant, (0.6, 1.1))
_DOOR = ("door", _door, (0.85, 2.0))
_SHELF = ("standing", _books, (0.9, 1.9))
_MONITOR = ("screen", _screen, (0.6, 0.36))
_TREES = ("standing", _trees, (3.5, 3.2))
_CURTAIN = ("standing", _curtain, (0.6, 2.2))

ROOMS: dict[str, RoomKind] = {
    "office": RoomKind((_plaster,), (_plaster, _books), (_MONITOR, _SHELF, _DOOR, _PLANT), (1.4, 3.5), (2.6, 4.5)),
    "living_room": RoomKind((_plaster, _wallpaper), (_wallpaper, _plaster), (_PICTURE, _PLANT, _SHELF, _CURTAIN), (1.2, 3.2), (2.6, 4.5)),
    "kitchen": RoomKind((_tiles, _cupboards), (_cupboards, _tiles), (_WINDOW, _PLANT, _DOOR), (1.2, 2.8), (2.2, 3.6)),
    "corridor": RoomKind((_plaster, _door), (_plaster,), (_DOOR, _PICTURE), (4.0, 8.0), (1.6, 2.4)),
    "library": RoomKind((_books,), (_books, _wood), (_SHELF, _PLANT), (0.9, 2.4), (2.4, 4.5)),
    "brick_loft": RoomKind((_brick,), (_brick, _plaster), (_WINDOW, _PICTURE, _PLANT), (1.0, 3.0), (2.6, 5.0)),
    "by_window": RoomKind((_plaster,), (_plaster,), (_WINDOW, _WINDOW, _CURTAIN, _PLANT), (1.0, 2.2), (2.4, 4.0)),
    "plain_wall": RoomKind((_plaster,), (_plaster,), (), (0.5, 1.2), (2.4, 4.0)),
    "cafe": RoomKind((_wood, _brick), (_wood, _plaster), (_PICTURE, _MONITOR, _PLANT, _WINDOW), (1.8, 4.5), (3.0, 6.0)),
    "bedroom": RoomKind((_wallpaper, _curtain), (_curtain, _plaster), (_PICTURE, _CURTAIN, _DOOR), (1.0, 2.5), (2.4, 4.0)),
    "bathroom": RoomKind((_tiles,), (_tiles,), (_CURTAIN, _WINDOW), (0.8, 1.8), (1.6, 2.6)),
    "car": RoomKind((_window,), (_window, _plaster), (("seat", _car_seat, (0.7, 1.1)),), (1.2, 1.8), (1.3, 1.5)),
    "street": RoomKind((_sky,), (_facade, _brick), (_TREES, _TREES), (10.0, 25.0), (7.0, 12.0), outdoors=True),
    "park": RoomKind((_sky,), (_hedge,), (_TREES, _TREES, _TREES), (8.0, 20.0), (10.0, 16.0), outdoors=True),
}  # fmt: skip


OUTDOOR_LIGHTS = ("overcast", "sunny", "golden_hour", "street_night", "backlit", "one_sided")
INDOOR_LIGHTS = tuple(k for k in LIGHTS if k not in ("overcast", "sunny", "street_night"))


def draw_kind(rng: np.random.Generator) -> str:
    """The kind of room that `sample_room` would draw first from this generator."""
    return str(rng.choice(list(ROOMS)))


def fits(kind: str, light: str) -> bool:
    """Whether a light of this kind shines in a room of that kind.

    >>> fits("street", "office"), fits("street", "sunny")
    (False, True)
    """
    return light in (OUTDOOR_LIGHTS if ROOMS[kind].outdoors else INDOOR_LIGHTS)


def sample_room(rng: np.random.Generator, kind: str | None = None) -> Room:
    """Draw a room around the world's origin, where the face is.

    Args:
        rng: source of everything random.
        kind: a key of `ROOMS`; None draws one.

    Returns:
        Room of albedo texels; the back wall stands 0.5 to 25 m behind the face.

    Raises:
        SimulationError: unknown kind.
    """
    kind = draw_kind(rng) if kind is None else kind
    if kind not in ROOMS:
        raise SimulationError(f"room {kind!r} is unknown; choose one of {', '.join(ROOMS)}.")
    spec = ROOMS[kind]
    depth, width = rng.uniform(*spec.depth), rng.uniform(*spec.width)
    floor = -float(rng.uniform(1.1, 1.6))
    height = 12.0 if spec.outdoors else float(rng.uniform(2.4, 3.0)) if kind != "car" else 1.9
    shift = float(rng.uniform(-0.25, 0.25) * width)
    box = _Box(-depth, 1.6, -width / 2 + shift, width / 2 + shift, floor, floor + height)
    rects = [*_shell(box, spec, rng), *(_thing(box, thing, rng) for thing in _chosen(spec, rng))]
    return build_room(rects, kind=kind)


@dataclass(frozen=True)
class _Box:
    back: float
    front: float
    left: float
    right: float
    floor: float
    top: float


def _chosen(spec: RoomKind, rng: np.random.Generator) -> list:
    if not spec.things:
        return []
    count = int(rng.integers(1, len(spec.things) + 3))
    return [spec.things[int(k)] for k in rng.integers(0, len(spec.things), count)]


def _paint(rng: np.random.Generator, maker: Callable, width: float, height: float) -> np.ndarray:
    scale = min(_TEXELS_PER_METRE, 300.0 / max(width, height))
    return _weathered(rng, maker(rng, max(int(height * scale), 24), max(int(width * scale), 24)))


def _pick(rng: np.random.Generator, makers: tuple[Callable, ...]) -> Callable:
    return makers[int(rng.integers(len(makers)))]


def _shell(box: _Box, spec: RoomKind, rng: np.random.Generator) -> list[Rect]:
    width, height, length = box.right - box.left, box.top - box.floor, box.front - box.back
    back, side = _pick(rng, spec.back), _pick(rng, spec.side)
    sky = spec.outdoors or back is _window
    rects = [
        Rect((box.left, box.top, box.back), (width, 0, 0), (0, -height, 0), _paint(rng, back, width, height), sky),
        Rect(
            (box.left, box.top, box.front), (0, 0, -length), (0, -height, 0), _paint(rng, side, length, height)[..., :3]
        ),
        Rect(
            (box.right, box.top, box.back), (0, 0, length), (0, -height, 0), _paint(rng, side, length, height)[..., :3]
        ),
        Rect(
            (box.left, box.floor, box.back),
            (width, 0, 0),
            (0, 0, length),
            _paint(rng, _ground if spec.outdoors else _floor, width, length),
        ),
    ]
    ceiling = _sky if spec.outdoors else _plaster
    rects.append(
        Rect((box.left, box.top, box.front), (width, 0, 0), (0, 0, -length), _paint(rng, ceiling, width, length), sky)
    )
    behind = _paint(rng, _plaster if not spec.outdoors else _facade, width, height)
    rects.append(Rect((box.right, box.top, box.front), (-width, 0, 0), (0, -height, 0), behind))
    return rects


def _thing(box: _Box, thing: tuple[str, Callable, tuple[float, float]], rng: np.random.Generator) -> Rect:
    how, maker, (w, h) = thing
    scale = float(rng.uniform(0.8, 1.25))
    w, h = w * scale, h * scale
    texture = _paint(rng, maker, w, h)
    x = float(rng.uniform(box.left, max(box.right - w, box.left + 0.05)))
    on_wall = how in ("hung", "window", "door")
    z = box.back + 0.02 if on_wall else float(rng.uniform(box.back + 0.05, max(-0.55, box.back + 0.06)))
    bottom = {"hung": rng.uniform(-0.4, 0.3), "window": rng.uniform(-0.6, 0.1), "screen": rng.uniform(-0.5, -0.1)}
    y = box.floor + h if how in ("standing", "door") else float(bottom.get(how, -0.75)) + h
    return Rect((x, y, z), (w, 0, 0), (0, -h, 0), texture, how in ("window", "screen"))
