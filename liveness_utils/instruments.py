"""Presentation attack instruments: what a victim's picture is shown on.

Way of the data: picture captured first (sRGB) -> instrument -> surface texture and geometry -> simulate.
An instrument is drawn from its species and a number alone, so that splits can be disjoint in instruments.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba as nb
import numpy as np

from liveness_utils.motion import FORGERIES

SPECIES = (
    "bona_fide",
    "flat_print",
    "bent_print",
    "eye_hole_print",
    "still_replay",
    "video_replay",
    "rigid_mask",
    "soft_mask",
    "injection",
)
ATTACKS = SPECIES[1:]
PRINTS = ("flat_print", "bent_print", "eye_hole_print")
REPLAYS = ("still_replay", "video_replay")
MASKS = ("rigid_mask", "soft_mask")
INSTRUMENTS_PER_SPECIES = 16


@dataclass(frozen=True)
class PrintInstrument:
    """A printer, its ink and paper, and how the sheet is cut and held.

    Lengths in metres, reflectances linear in 0..1, ``bend_radius`` infinite for a flat sheet.
    """

    instrument_id: str
    kind: str
    width: float
    height: float
    white_border: float
    paper: tuple[float, float, float]
    black: float
    saturation: float
    contrast: float
    tint: tuple[float, float, float]
    screen_ruling: float
    dot_gain: float
    banding: float
    blur: float
    specular: float
    roughness: float
    bend_radius: float
    bend_axis: float
    flex: float
    hole_scale: float


@dataclass(frozen=True)
class ScreenInstrument:
    """A display that replays a picture or a video.

    ``pitch`` is the pixel pitch in metres, ``white_nits`` and ``black_nits`` luminances in cd/m²,
    ``refresh`` in Hz, ``pwm_depth`` the modulation of the backlight over a refresh in 0..1.
    """

    instrument_id: str
    kind: str
    width: float
    height: float
    bezel: float
    pitch: float
    white_nits: float
    black_nits: float
    white_point: tuple[float, float, float]
    gamma: float
    saturation: float
    refresh: float
    pwm_depth: float
    grid_contrast: float
    reflectance: float
    roughness: float
    bezel_colour: tuple[float, float, float]


@dataclass(frozen=True)
class MaskInstrument:
    """A worn mask: material, thickness and fit.

    ``offset`` is how far the outer surface stands off the face in metres, ``damping`` which part of the
    wearer's expression comes through (0 rigid, 1 all), ``detail`` the texture detail kept, ``makeup`` how far
    the wearer's skin in the openings is painted like the mask.
    """

    instrument_id: str
    kind: str
    specular: float
    roughness: float
    sss: float
    offset: float
    damping: float
    eye_hole: float
    mouth_slit: bool
    detail: float
    saturation: float
    tint: tuple[float, float, float]
    grain: float
    seam: float
    makeup: float


@dataclass(frozen=True)
class InjectionTool:
    """A virtual camera and what it reports as motion data.

    ``imu_kind`` is one of `motion.FORGERIES`; how each is made is in `motion.forge_imu`.
    """

    instrument_id: str
    kind: str
    imu_kind: str


Instrument = PrintInstrument | ScreenInstrument | MaskInstrument | InjectionTool

_PRINT_KINDS = (
    # kind, paper reflectance, black, saturation, ruling lines/m, banding, specular, roughness
    ("laser on plain paper", (0.80, 0.80, 0.80), 0.035, 0.78, 5200.0, 0.000, 0.06, 0.45),
    ("inkjet on plain paper", (0.82, 0.82, 0.83), 0.085, 0.62, 0.0, 0.030, 0.02, 0.80),
    ("inkjet on glossy photo paper", (0.88, 0.88, 0.87), 0.020, 0.95, 0.0, 0.008, 0.45, 0.10),
    ("photo laboratory, matt", (0.87, 0.86, 0.84), 0.025, 0.92, 0.0, 0.000, 0.10, 0.30),
    ("photo laboratory, glossy", (0.88, 0.87, 0.86), 0.015, 1.00, 0.0, 0.000, 0.55, 0.07),
    ("office copier, colour", (0.78, 0.79, 0.80), 0.050, 0.70, 4000.0, 0.010, 0.12, 0.35),
    ("offset print, coated", (0.84, 0.83, 0.81), 0.030, 0.85, 6900.0, 0.000, 0.20, 0.22),
    ("dye sublimation card", (0.86, 0.86, 0.86), 0.022, 0.98, 0.0, 0.004, 0.50, 0.12),
)

_SCREEN_KINDS = (
    # kind, width, height, pitch µm, white, black, refresh, pwm, grid, reflectance, roughness
    ("phone, OLED", 0.068, 0.148, 55.0, 420.0, 0.02, 60.0, 0.55, 0.10, 0.045, 0.03),
    ("phone, LCD", 0.065, 0.138, 63.0, 450.0, 0.40, 60.0, 0.08, 0.12, 0.045, 0.03),
    ("phone, OLED 120 Hz", 0.071, 0.157, 49.0, 600.0, 0.01, 120.0, 0.40, 0.09, 0.042, 0.03),
    ("tablet, LCD", 0.160, 0.214, 96.0, 420.0, 0.45, 60.0, 0.05, 0.14, 0.045, 0.04),
    ("tablet, OLED", 0.166, 0.228, 96.0, 480.0, 0.02, 60.0, 0.45, 0.13, 0.040, 0.03),
    ("laptop, matt LCD", 0.310, 0.194, 162.0, 300.0, 0.35, 60.0, 0.10, 0.20, 0.050, 0.30),
    ("laptop, glossy LCD", 0.302, 0.196, 115.0, 450.0, 0.40, 60.0, 0.04, 0.16, 0.045, 0.04),
    ("monitor, matt LCD", 0.527, 0.296, 275.0, 280.0, 0.28, 60.0, 0.06, 0.26, 0.050, 0.35),
)

_RIGID_KINDS = (
    # kind, specular, roughness, sss, offset m, detail, saturation, grain
    ("3D-printed resin, painted", 0.28, 0.28, 0.00, 0.006, 0.55, 0.85, 0.020),
    ("vacuum-formed plastic, printed", 0.50, 0.15, 0.00, 0.005, 0.70, 0.90, 0.010),
    ("plaster powder print, full colour", 0.04, 0.70, 0.00, 0.008, 0.60, 0.70, 0.030),
    ("folded paper craft", 0.08, 0.50, 0.00, 0.007, 0.65, 0.80, 0.010),
    ("fibreglass, airbrushed", 0.35, 0.22, 0.00, 0.007, 0.45, 0.95, 0.015),
)

_SOFT_KINDS = (
    ("silicone, hand painted", 0.22, 0.38, 0.35, 0.005, 0.82, 0.95, 0.030),
    ("latex, sprayed", 0.12, 0.55, 0.15, 0.006, 0.70, 0.85, 0.035),
    ("foam latex", 0.05, 0.75, 0.10, 0.008, 0.66, 0.80, 0.040),
    ("stretch fabric, printed", 0.02, 0.90, 0.05, 0.003, 0.80, 0.75, 0.045),
)


def instrument_rng(species: str, index: int) -> np.random.Generator:
    """Generator that depends on species and instrument number only."""
    return np.random.default_rng([104729, SPECIES.index(species), index])


def instrument(species: str, index: int) -> Instrument | None:
    """The parametric instrument ``index`` of a species.

    Args:
        species: one of ``SPECIES``; bona fide presentations have no instrument.
        index: 0 .. ``INSTRUMENTS_PER_SPECIES`` - 1 are those of the clips; higher numbers, drawn in the same way, are
            for single pictures (`pictures`).

    Returns:
        A frozen dataclass, or None for ``bona_fide``.

    Raises:
        ValueError: unknown species or negative index.

    >>> instrument("flat_print", 3).instrument_id
    'flat_print-03'
    """
    if species not in SPECIES:
        raise ValueError(f"unknown PAI species {species!r}; known: {', '.join(SPECIES)}")
    if species == "bona_fide":
        return None
    if index < 0:
        raise ValueError(f"instrument {index} of {species} does not exist; numbers start at 0")
    rng, name = instrument_rng(species, index), f"{species}-{index:02d}"
    if species in PRINTS:
        return _print(rng, name, species, index)
    if species in REPLAYS:
        return _screen(rng, name, index)
    if species in MASKS:
        return _mask(rng, name, species, index)
    return _injection(name, index)


def _jitter(rng: np.random.Generator, value: float, part: float) -> float:
    return float(value * np.exp(rng.normal(0.0, part)))


def _print(rng: np.random.Generator, name: str, species: str, index: int) -> PrintInstrument:
    kind, paper, black, saturation, ruling, banding, specular, roughness = _PRINT_KINDS[index % len(_PRINT_KINDS)]
    height = float(rng.choice([0.297, 0.254, 0.297, 0.30]))
    curved = species == "bent_print"
    worn = species == "eye_hole_print"
    radius = float(rng.uniform(0.07, 0.20)) if curved else float(rng.uniform(0.11, 0.3)) if worn else np.inf
    return PrintInstrument(
        instrument_id=name,
        kind=kind,
        width=height * float(rng.uniform(0.68, 0.80)),
        height=height,
        white_border=float(rng.choice([0.0, 0.0, 0.004, 0.010])),
        paper=tuple(float(p * rng.uniform(0.96, 1.03)) for p in paper),
        black=_jitter(rng, black, 0.2),
        saturation=_jitter(rng, saturation, 0.08),
        contrast=float(rng.uniform(0.90, 1.15)),
        tint=tuple(float(x) for x in 1.0 + rng.normal(0.0, 0.035, 3)),
        screen_ruling=_jitter(rng, ruling, 0.1) if ruling else 0.0,
        dot_gain=float(rng.uniform(0.0, 0.18)),
        banding=_jitter(rng, banding, 0.3),
        blur=float(rng.uniform(0.3, 1.1)),
        specular=_jitter(rng, specular, 0.2),
        roughness=_jitter(rng, roughness, 0.15),
        bend_radius=radius,
        bend_axis=float(rng.normal(0.0, 0.25) + (np.pi / 2 if curved and rng.random() < 0.2 else 0.0)),
        flex=float(rng.uniform(0.0, 0.12)) if species != "flat_print" else 0.0,
        hole_scale=float(rng.uniform(0.85, 1.25)),
    )


def _screen(rng: np.random.Generator, name: str, index: int) -> ScreenInstrument:
    kind, width, height, pitch, white, black, refresh, pwm, grid, reflect, rough = _SCREEN_KINDS[
        index % len(_SCREEN_KINDS)
    ]
    scale = float(rng.uniform(0.94, 1.06))
    shade = float(rng.choice([0.008, 0.015, 0.03, 0.5], p=[0.5, 0.25, 0.15, 0.1]))
    return ScreenInstrument(
        instrument_id=name,
        kind=kind,
        width=width * scale,
        height=height * scale,
        bezel=float(rng.uniform(0.002, 0.006) if "phone" in kind else rng.uniform(0.006, 0.014)),
        pitch=_jitter(rng, pitch, 0.05) * 1e-6,
        white_nits=_jitter(rng, white, 0.25),
        black_nits=_jitter(rng, black, 0.2),
        white_point=tuple(float(x) for x in np.array([0.97, 1.0, 1.06]) * (1 + rng.normal(0, 0.025, 3))),
        gamma=float(rng.uniform(2.1, 2.4)),
        saturation=float(rng.uniform(0.95, 1.2)),
        refresh=refresh * float(rng.uniform(0.998, 1.002)),
        pwm_depth=float(np.clip(_jitter(rng, pwm, 0.3), 0.0, 0.9)),
        grid_contrast=0.4 * _jitter(rng, grid, 0.25),
        reflectance=_jitter(rng, reflect, 0.1),
        roughness=_jitter(rng, rough, 0.1),
        bezel_colour=(shade, shade, shade),
    )


def _mask(rng: np.random.Generator, name: str, species: str, index: int) -> MaskInstrument:
    soft = species == "soft_mask"
    kinds = _SOFT_KINDS if soft else _RIGID_KINDS
    kind, specular, roughness, sss, offset, detail, saturation, grain = kinds[index % len(kinds)]
    return MaskInstrument(
        instrument_id=name,
        kind=kind,
        specular=_jitter(rng, specular, 0.2),
        roughness=_jitter(rng, roughness, 0.15),
        sss=sss,
        offset=_jitter(rng, offset, 0.2),
        damping=float(rng.uniform(0.25, 0.6)) if soft else 0.0,
        eye_hole=float(rng.uniform(0.9, 1.25)),
        mouth_slit=bool(rng.random() < 0.5),
        detail=float(np.clip(detail + rng.normal(0, 0.1), 0.2, 0.9)),
        saturation=_jitter(rng, saturation, 0.08),
        tint=tuple(float(x) for x in 1.0 + rng.normal(0.0, 0.05, 3)),
        grain=_jitter(rng, grain, 0.3),
        seam=float(rng.uniform(0.2, 1.0)),
        makeup=float(rng.uniform(0.0, 0.6)) if soft else 0.0,
    )


def _injection(name: str, index: int) -> InjectionTool:
    imu_kind = FORGERIES[index % len(FORGERIES)]
    kind = ("virtual camera driver", "hooked camera API", "emulated phone", "tampered app")[index % 4]
    return InjectionTool(instrument_id=name, kind=kind, imu_kind=imu_kind)


# ---------------------------------------------------------------- pictures onto surfaces


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """sRGB uint8 to linear float32 in 0..1 (IEC 61966-2-1)."""
    return _SRGB_TABLE[image]


_ramp = np.arange(256) / 255.0
_SRGB_TABLE = np.where(_ramp <= 0.04045, _ramp / 12.92, ((_ramp + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _saturate(linear: np.ndarray, amount: float | np.ndarray) -> np.ndarray:
    """Scale chroma about luminance by a factor, or by one a pixel (H, W)."""
    grey = (linear @ np.array([0.2126, 0.7152, 0.0722], np.float32))[..., None]
    return grey + np.asarray(amount, np.float32)[..., None] * (linear - grey)


_MID_GREY = np.float32(0.35)


def _levels(linear: np.ndarray) -> np.ndarray:
    """What people and drivers do before printing: the brightest percent becomes paper white, within a stop."""
    top = float(np.percentile(linear[::4, ::4].max(2), 99.0))
    return linear * np.float32(np.clip(1.0 / max(top, 1e-3), 1.0, 2.0))


def _in_gamut(linear: np.ndarray, saturation: float) -> np.ndarray:
    """Compress vivid colours towards the inks' gamut; dull ones, skin among them, lose little."""
    top, low = linear.max(2), linear.min(2)
    vivid = (top - low) / np.maximum(top, 1e-4)
    return np.maximum(_saturate(linear, 1.0 - (1.0 - saturation) * vivid), 0.0)


def print_texture(picture: np.ndarray, paper: PrintInstrument, rng: np.random.Generator) -> np.ndarray:
    """Reflectance of a picture printed by this instrument.

    Args:
        picture: (H, W, 3) uint8 sRGB, covering the sheet inside its border.
        paper: the instrument.
        rng: dust, banding phase.

    Returns:
        (H, W, 3) float32 linear reflectance between ink black and paper white.
    """
    ink = cv2.GaussianBlur(_levels(srgb_to_linear(picture)), (0, 0), paper.blur)
    ink = np.clip(_in_gamut(ink, paper.saturation) * np.array(paper.tint, np.float32), 0.0, 1.0)
    # drivers compensate dot gain at mid-grey; a part of it is left and darkens what lies between
    ink = _MID_GREY * (ink / _MID_GREY) ** np.float32(paper.contrast * (1.0 + 0.4 * paper.dot_gain))
    ink = np.minimum(ink, 1.0)
    white = np.array(paper.paper, np.float32)
    out = paper.black + ink * (white - paper.black)
    if paper.banding:
        rows = np.arange(out.shape[0]) * paper.height / out.shape[0]
        band = np.sin(2 * np.pi * rows / 0.0042 + rng.uniform(0, 6.28)) + rng.normal(0, 0.6, len(rows))
        out *= (1.0 + paper.banding * band[:, None, None]).astype(np.float32)
    _paper_border(out, paper)
    return np.clip(out, 0.0, 1.0).astype(np.float32)


def _paper_border(texture: np.ndarray, paper: PrintInstrument) -> None:
    edge = int(round(paper.white_border / paper.height * texture.shape[0]))
    if edge:
        for side in (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:]):
            texture[side] = paper.paper


def screen_texture(picture: np.ndarray, screen: ScreenInstrument, lux: float) -> np.ndarray:
    """Light that a screen emits for a picture, in units of the scene's white reference.

    A white diffuser under ``lux`` has the luminance lux/π cd/m²; the screen's own white is set against it.
    A person turns a screen down in the dark, so the ratio is limited to 0.5 .. 3.

    Args:
        picture: (H, W, 3) uint8 sRGB.
        screen: the instrument.
        lux: illuminance at the face, lux.

    Returns:
        (H, W, 3) float32 linear emission.
    """
    white = float(np.clip(screen.white_nits * np.pi / max(lux, 1.0), 0.5, 3.0))
    table = (_ramp**screen.gamma).astype(np.float32)
    linear = np.clip(_saturate(table[picture], screen.saturation), 0.0, 1.0)
    floor = screen.black_nits / screen.white_nits
    return (white * (floor + (1.0 - floor) * linear) * np.array(screen.white_point, np.float32)).astype(np.float32)


def sheet(width: float, height: float, *, radius: float = np.inf, axis: float = 0.0, cells: int = 24):
    """Mesh of a sheet, flat or bent to a cylinder, centred in its own frame.

    Args:
        width, height: metres.
        radius: of the cylinder in metres, infinite for flat. The sheet bulges towards +z.
        axis: angle of the cylinder's axis from the sheet's y axis, radians.
        cells: grid cells along each side.

    Returns:
        vertices (V, 3) float32 (x right, y up, z towards the viewer), triangles (F, 3) int32 front-facing
        to +z, uv (V, 2) float32 with (0, 0) at the top left.

    >>> v, f, uv = sheet(0.2, 0.3, cells=2)
    >>> v.shape, f.shape, uv.shape
    ((9, 3), (8, 3), (9, 2))
    """
    grid = np.linspace(0.0, 1.0, cells + 1, dtype=np.float32)
    u, v = (a.ravel() for a in np.meshgrid(grid, grid))
    flat = np.stack([(u - 0.5) * width, (0.5 - v) * height], 1)
    k = np.arange(cells * (cells + 1)).reshape(cells, cells + 1)[:, :-1].ravel()
    n = cells + 1
    triangles = np.concatenate([np.stack([k, k + n, k + 1], 1), np.stack([k + 1, k + n, k + n + 1], 1)])
    return bend(flat, radius, axis), triangles.astype(np.int32), np.stack([u, v], 1)


def bend(points: np.ndarray, radius: float, axis: float) -> np.ndarray:
    """Roll points of a sheet onto a cylinder without stretching.

    Args:
        points: (N, 2) metres on the flat sheet, origin at its centre.
        radius: cylinder radius in metres (infinite keeps it flat).
        axis: angle of the axis from the sheet's y axis, radians.

    Returns:
        (N, 3) float32; the arc length on the sheet is kept (a developable surface).
    """
    if not np.isfinite(radius):
        return np.column_stack([points, np.zeros(len(points))]).astype(np.float32)
    c, s = np.cos(axis), np.sin(axis)
    across, along = points @ np.array([c, s]), points @ np.array([-s, c])
    x, z = radius * np.sin(across / radius), radius * (np.cos(across / radius) - 1.0)
    return np.stack([c * x - s * along, s * x + c * along, z], 1).astype(np.float32)


# ---------------------------------------------------------------- optics that need the output pixel grid


@nb.njit(cache=True, fastmath=True)
def _grid(image, mask, uv, columns, lines, rows, amplitude):
    """Sub-pixel stripes, a third of a pixel apart in red, green and blue, and lines between pixels."""
    one, half, root = np.float32(1.0), np.float32(0.5), np.float32(0.8660254)
    turn = np.float32(2.0 * np.pi)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if not mask[y, x]:
                continue
            a, b = uv[y, x, 0] * columns, uv[y, x, 1] * lines
            a, b = turn * (a - np.floor(a)), turn * (b - np.floor(b))
            c, s = amplitude * np.cos(a), amplitude * np.sin(a)
            both = rows[y] * (one + half * amplitude * np.cos(b))
            image[y, x, 0] *= both * (one + c)
            image[y, x, 1] *= both * (one - half * c + root * s)
            image[y, x, 2] *= both * (one - half * c - root * s)


def pixel_grid(
    image: np.ndarray,
    mask: np.ndarray,
    uv: np.ndarray,
    screen: ScreenInstrument,
    *,
    t: float,
    exposure: float,
    readout: float,
    focus: float,
) -> None:
    """Moiré and refresh banding of a screen, in place.

    The sub-pixel stripes are evaluated at the camera's pixel centres, so that their aliases have the true
    frequency for the true distance and angle; ``focus`` in 0..1 is what lens and pixel aperture leave of them.
    Rows are exposed one after the other: a light that flickers at the refresh rate leaves bands whose
    contrast is the flicker's, averaged over the exposure (sinc).

    Args:
        image: (H, W, 3) float32 linear, changed in place.
        mask: (H, W) bool, where the screen is seen.
        uv: (H, W, 2) float32, position on the screen in 0..1.
        screen: the instrument.
        t: time of the middle row, s. exposure, readout: s.
        focus: 0..1.
    """
    rows = t + (np.arange(image.shape[0]) / image.shape[0] - 0.5) * readout
    band = screen.pwm_depth * abs(np.sinc(screen.refresh * exposure))
    light = (1.0 + band * np.cos(2 * np.pi * screen.refresh * rows)).astype(np.float32)
    across, down = np.float32(screen.width / screen.pitch), np.float32(screen.height / screen.pitch)
    _grid(image, mask, uv, across, down, light, np.float32(screen.grid_contrast * focus))


@nb.njit(cache=True, fastmath=True)
def _dots(image, mask, u, v, amplitude):
    """u and v in lines of the screen; a turn is taken off before the cosine, which single precision then does well."""
    one, cos15, sin15, weak = np.float32(1.0), np.float32(0.966), np.float32(0.259), np.float32(0.6)
    turn = np.float32(2.0 * np.pi)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if not mask[y, x]:
                continue
            a, b = u[y, x], v[y, x]
            p, q = a * cos15 + b * sin15, b * cos15 - a * sin15
            r, s = a * sin15 + b * cos15, b * sin15 - a * cos15
            p, q, r, s = p - np.floor(p), q - np.floor(q), r - np.floor(r), s - np.floor(s)
            a, b = a - np.floor(a), b - np.floor(b)
            image[y, x, 0] *= one + amplitude * np.cos(turn * p) * np.cos(turn * q)
            image[y, x, 1] *= one + amplitude * np.cos(turn * r) * np.cos(turn * s)
            image[y, x, 2] *= one + weak * amplitude * np.cos(turn * a) * np.cos(turn * b)


def halftone(image: np.ndarray, mask: np.ndarray, uv: np.ndarray, paper: PrintInstrument, *, focus: float) -> None:
    """Aliases of a print's halftone screens (15°, 75°, 0°), in place; see ``pixel_grid`` for the arguments."""
    if paper.screen_ruling:
        u = (uv[..., 0] * (paper.width * paper.screen_ruling)).astype(np.float32)
        v = (uv[..., 1] * (paper.height * paper.screen_ruling)).astype(np.float32)
        _dots(image, mask, u, v, np.float32(0.06 * focus))
