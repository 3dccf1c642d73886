"""Hair: a shell over the skull, its thickness and length given by a hair style.

Skull directions from `head_model` and an identity come in; vertices, triangles and
texture coordinates of the hair (u across the strands, v along them) go out to `faces`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liveness_utils.head_model import ATLAS, HAIR_COLUMNS, SKULL_CENTRE, TEXTURE_SIZE, HeadModel, hair_directions

ROWS = 20  # rows of the shell along a strand
SKULL_ROWS = 12  # of these, rows that lie on the skull when hair hangs


@dataclass(frozen=True)
class HairStyle:
    """Lengths in metres. `male` and `female` are how often a style is drawn.

    Attributes:
        top, side, back: thickness over the skull.
        tip: height y of hanging hair's ends in the head frame; None: does not hang.
        opening: azimuth in degrees from which hair hangs beside the face.
        fringe: degrees by which the front hair comes down over the forehead.
        curl: amplitude of the surface's unevenness.
        bun: whether hair is tied to a bun.
        painted: density of hair painted on the scalp.
        top_bald: whether the top of the skull is bare.
    """

    male: float
    female: float
    top: float = 0.0
    side: float = 0.0
    back: float = 0.0
    tip: float | None = None
    opening: float = 62.0
    fringe: float = 0.0
    curl: float = 0.0015
    bun: bool = False
    painted: float = 1.0
    top_bald: bool = False


HAIR_STYLES: dict[str, HairStyle] = {
    "bald": HairStyle(0.4, 0.01, painted=0.0),
    "horseshoe": HairStyle(0.02, 0.0, painted=0.75, top_bald=True),
    "buzz": HairStyle(1.2, 0.08, painted=0.85),
    "crop": HairStyle(2.5, 0.2, 0.014, 0.005, 0.008, curl=0.002),
    "short": HairStyle(3.0, 0.5, 0.024, 0.012, 0.016, fringe=4.0, curl=0.003),
    "quiff": HairStyle(1.8, 0.1, 0.038, 0.007, 0.012, curl=0.003),
    "fringe": HairStyle(1.0, 0.5, 0.026, 0.018, 0.020, fringe=14.0, curl=0.002),
    "medium": HairStyle(0.5, 1.5, 0.024, 0.022, 0.024, tip=-0.060, opening=66.0, curl=0.003),
    "bob": HairStyle(0.1, 2.0, 0.020, 0.020, 0.022, tip=-0.105, opening=52.0, curl=0.002),
    "bob_fringe": HairStyle(0.05, 1.0, 0.022, 0.020, 0.022, tip=-0.100, opening=52.0, fringe=15.0, curl=0.002),
    "long": HairStyle(0.25, 2.6, 0.019, 0.018, 0.020, tip=-0.235, opening=56.0, curl=0.003),
    "long_wavy": HairStyle(0.1, 1.6, 0.026, 0.028, 0.028, tip=-0.215, opening=52.0, curl=0.007),
    "tied": HairStyle(0.2, 1.6, 0.010, 0.007, 0.010, curl=0.001, bun=True),
    "curly": HairStyle(0.8, 1.0, 0.034, 0.026, 0.028, fringe=3.0, curl=0.007),
    "afro": HairStyle(0.2, 0.3, 0.052, 0.046, 0.046, curl=0.006),
}


def hairline(azimuth: np.ndarray, receding: float = 0.0) -> np.ndarray:
    """Polar angle (rad, from the crown about the skull's centre) where scalp hair ends.

    Args:
        azimuth: rad, 0 at the front, either sign.
        receding: metres lost at the front, more at the temples.
    """
    a = np.abs((np.asarray(azimuth) + np.pi) % (2 * np.pi) - np.pi)
    knots = np.deg2rad([0, 22, 38, 50, 58, 64, 71, 82, 86, 92, 106, 113, 121, 140, 160, 180])
    limit = np.deg2rad([70, 70, 73, 79, 88, 100, 115, 119, 108, 101, 100, 109, 127, 139, 144, 145])
    lost = np.interp(a, np.deg2rad([0, 30, 48, 66, 80]), [0.7, 1.0, 1.25, 0.7, 0.0]) * receding / 0.10
    return np.interp(a, knots, limit) - lost


def fringe(style: HairStyle, azimuth: np.ndarray) -> np.ndarray:
    """Polar angle (rad) by which a style's front hair comes down over the hairline."""
    return np.deg2rad(style.fringe) * np.clip(1.6 - np.abs(azimuth) / np.deg2rad(40), 0, 1)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise of unit scale, periodic across columns."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(
        rng.normal(size=shape), (shape[0] / cells[0] / 2, shape[1] / cells[1] / 2), mode=("nearest", "wrap")
    )
    return noise / max(noise.std(), 1e-9)


def _on_skull(hits: np.ndarray, column: int, polar: np.ndarray) -> np.ndarray:
    """(n,3) skin points of a column at polar angles."""
    known, _ = hair_directions()
    return np.stack([np.interp(polar, known, hits[:, column, c]) for c in range(3)], 1)


def _strand(style, hits, column, azimuth, limit, thickness) -> tuple[np.ndarray, bool]:
    """One strand from crown to tip: points (ROWS,3), and whether it hangs."""
    hangs = style.tip is not None and abs(azimuth) >= np.deg2rad(style.opening)
    if not hangs:
        polar = np.linspace(np.deg2rad(2), limit, ROWS)
        skin = _on_skull(hits, column, polar)
        return _lift(skin, thickness, np.linspace(0, 1, ROWS)), False
    within = np.clip((abs(azimuth) - np.deg2rad(style.opening)) / np.deg2rad(22), 0, 1)
    polar = np.linspace(np.deg2rad(2), np.deg2rad(86), SKULL_ROWS)
    close = 1 - (1 - within) * np.linspace(0, 1, SKULL_ROWS) ** 2 * 0.85
    skull = _lift(_on_skull(hits, column, polar), thickness * close, np.zeros(SKULL_ROWS))
    out = np.tile(skull[-1], (ROWS, 1))
    out[:SKULL_ROWS] = skull
    fall = np.linspace(0, 1, ROWS - SKULL_ROWS + 1)[1:]
    out[SKULL_ROWS:, 1] += fall * (style.tip + 0.012 * (1 - within) - skull[-1, 1])
    reach = out[SKULL_ROWS:, [0, 2]] - SKULL_CENTRE[[0, 2]]
    out[SKULL_ROWS:, [0, 2]] = (
        SKULL_CENTRE[[0, 2]] + reach * (1 + 0.10 * np.sin(np.pi * np.minimum(fall * 1.25, 1)) - 0.10 * fall**2)[:, None]
    )
    return out, True


def _lift(skin: np.ndarray, thickness: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Raise skin points along the skull's radius; towards its rim the shell slopes down into painted hair."""
    out = skin - SKULL_CENTRE
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    rim = np.clip((1 - part) / np.maximum(0.25, 12 * np.max(thickness)), 0, 1)
    return skin + out * (thickness * rim * (2 - rim) - 0.002 * (1 - rim) ** 3)[:, None]


def _thickness(style: HairStyle, azimuth: float, rows: int) -> np.ndarray:
    """Thickness along a strand: from the top's to the side's or back's."""
    behind = abs(azimuth) / np.pi
    end = style.side + (style.back - style.side) * np.clip((behind - 0.5) * 2, 0, 1)
    front = np.clip(1 - abs(azimuth) / np.deg2rad(55), 0, 1)
    end = end * (1 - front) + style.top * front * 0.9
    return style.top + (end - style.top) * np.linspace(0, 1, rows) ** 1.3


def hair_mesh(identity, model: HeadModel, points: np.ndarray):
    """Vertices, triangles and texture coordinates of an identity's hair, or None where it is only painted.

    Args:
        identity: `faces.Identity`.
        model: the head model.
        points: (P,3) base points of the identity, bare.
    """
    style = HAIR_STYLES[identity.hair_style]
    if style.top <= 0:
        return None
    rng = np.random.default_rng([identity.seed, 11])
    hits = np.einsum("rck,rckd->rcd", model.hair_bary, points[model.hair_hits])
    grid, hangs = _shell(style, identity, hits, rng)
    parts = [_shell_mesh(grid, hangs)]
    if hangs.any():
        parts.append(_inner_layer(grid, hangs))
    if style.bun:
        parts.append(_bun(hits))
    return _join(parts)


def _shell(style, identity, hits, rng):
    """(ROWS, columns, 3) points of the shell and (columns,) whether each strand hangs."""
    _, azimuth = hair_directions()
    signed = (azimuth + np.pi) % (2 * np.pi) - np.pi
    jag = _smooth_noise(rng, (1, HAIR_COLUMNS), (1, 30))[0] * 0.04
    # the painted hairline shows beyond the rim
    limit = hairline(signed, identity.hairline) + fringe(style, signed) + jag - 0.10
    uneven = (
        style.curl * _smooth_noise(rng, (ROWS, HAIR_COLUMNS), (6, 18)) * np.clip(np.arange(ROWS) / 4, 0, 1)[:, None]
    )
    part = rng.uniform(-0.35, 0.35)
    grid, hangs = np.zeros((ROWS, HAIR_COLUMNS, 3)), np.zeros(HAIR_COLUMNS, bool)
    for j in range(HAIR_COLUMNS):
        lift = _thickness(style, signed[j] - part * np.cos(signed[j] / 2) ** 4 * 0.4, ROWS) + uneven[:, j]
        grid[:, j], hangs[j] = _strand(
            style,
            hits,
            j,
            signed[j],
            limit[j],
            np.maximum(lift[:ROWS], 0.002)[: SKULL_ROWS if _does_hang(style, signed[j]) else ROWS],
        )
    return _ruffle(grid, hangs, style, rng), hangs


def _does_hang(style: HairStyle, azimuth: float) -> bool:
    return style.tip is not None and abs(azimuth) >= np.deg2rad(style.opening)


def _ruffle(grid, hangs, style, rng):
    """Uneven tips and waves of hanging hair."""
    if not hangs.any():
        return grid
    tips = _smooth_noise(rng, (1, HAIR_COLUMNS), (1, 24))[0] * 0.007
    fall = np.linspace(0, 1, ROWS - SKULL_ROWS + 1)[1:]
    wave = _smooth_noise(rng, (ROWS, HAIR_COLUMNS), (8, 14)) * style.curl * 1.2
    grid[SKULL_ROWS:, hangs, 1] += (tips[None, :] * fall[:, None])[:, hangs]
    out = grid[SKULL_ROWS:] - [SKULL_CENTRE[0], 0, SKULL_CENTRE[2]]
    out[..., 1] = 0
    out /= np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-9)
    grid[SKULL_ROWS:, hangs] += (out * wave[SKULL_ROWS:, :, None])[:, hangs]
    return grid


def _strand_uv(rows: int) -> np.ndarray:
    """(rows, columns, 2): u runs there and back so that it meets itself without a seam."""
    x, y, w, h = ATLAS["hair"]
    turn = 4 * np.arange(HAIR_COLUMNS) / HAIR_COLUMNS
    u = 1 - np.abs(1 - turn % 2)
    px = x + 2 + u * (w - 4)
    py = y + 2 + np.linspace(0, 1, rows) * (h - 4)
    return np.stack(np.broadcast_arrays(px[None, :], py[:, None]), -1) / TEXTURE_SIZE


def _grid_triangles(keep: np.ndarray) -> np.ndarray:
    """Triangles of a (rows, columns) grid closed in columns; `keep` (rows-1, columns) selects cells."""
    columns = keep.shape[1]
    i, j = np.nonzero(keep)
    k = (j + 1) % columns
    a, b, c, d = i * columns + j, i * columns + k, (i + 1) * columns + j, (i + 1) * columns + k
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def _cells(hangs: np.ndarray) -> np.ndarray:
    """Cells of the shell to draw: below the skull only between two hanging strands."""
    keep = np.ones((ROWS - 1, HAIR_COLUMNS), bool)
    if hangs.any():
        both = hangs & np.roll(hangs, -1)
        mixed = hangs ^ np.roll(hangs, -1)
        keep[SKULL_ROWS - 1 :] &= ~mixed[None]
        keep[:, both] = True
    return keep


def _shell_mesh(grid, hangs):
    # A strand that ends at the hairline has all its rows on the skull; next to a hanging one
    # it is resampled so that rows of the skull part meet.
    grid = grid.copy()
    if hangs.any():
        beside = ~hangs & (np.roll(hangs, 1) | np.roll(hangs, -1))
        for j in np.flatnonzero(beside):
            t = np.minimum(np.arange(ROWS) / (SKULL_ROWS - 1), 1) * (ROWS - 1)
            grid[:, j] = np.stack([np.interp(t, np.arange(ROWS), grid[:, j, c]) for c in range(3)], 1)
    return grid.reshape(-1, 3), _grid_triangles(_cells(hangs)), _strand_uv(ROWS).reshape(-1, 2)


def _inner_layer(grid, hangs):
    """The inside of hanging hair, seen behind the neck: reversed, a little within."""
    inner = grid.copy()
    edge = hangs & ~(np.roll(hangs, 1) & np.roll(hangs, -1))
    depth = np.where(edge, 0.0, 0.008)[None, :, None] * np.r_[np.ones(ROWS - 1), 0.2][:, None, None]
    out = inner - SKULL_CENTRE
    out[..., 1] = 0
    inner -= depth * out / np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-9)
    keep = np.zeros((ROWS - 1, HAIR_COLUMNS), bool)
    keep[SKULL_ROWS - 2 :] = (hangs & np.roll(hangs, -1))[None]
    return inner.reshape(-1, 3), _grid_triangles(keep)[:, ::-1], _strand_uv(ROWS).reshape(-1, 2)


def _bun(hits):
    """A ball of hair at the back of the crown."""
    t, a = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, 10), 2 * np.pi * np.arange(HAIR_COLUMNS) / HAIR_COLUMNS, indexing="ij"
    )
    ball = np.stack([np.sin(t) * np.sin(a), np.cos(t), np.sin(t) * np.cos(a)], -1) * [0.036, 0.030, 0.034]
    centre = hits[5, HAIR_COLUMNS // 2] + np.array([0, 0.030, -0.004])
    return (
        (ball + centre).reshape(-1, 3),
        _grid_triangles(np.ones((9, HAIR_COLUMNS), bool)),
        _strand_uv(10).reshape(-1, 2),
    )


def _join(parts):
    offset, out = 0, ([], [], [])
    for v, t, u in parts:
        out[0].append(v)
        out[1].append(t + offset)
        out[2].append(u)
        offset += len(v)
    return tuple(np.concatenate(o) for o in out)
