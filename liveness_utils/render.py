"""Renderer: triangle meshes and a room of textured rectangles become a linear-light image with exact depth.
faces, motion → **render** → sensor → simulate. It knows shapes, materials and light, and nothing about people or labels.
Everything is float32 on one core and deterministic: the same call gives the same bytes in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numba as nb
import numpy as np

_JIT = {"cache": True, "fastmath": True, "nogil": True, "error_model": "numpy"}
_INLINE = {**_JIT, "inline": "always"}  # calls that pass arrays cost more than what these functions do
_KERNEL = {**_JIT, "_nrt": False}  # allocates nothing, so that inner loops need not count references
_NEAR = 0.03  # metres; closer triangles are dropped whole
_TRI_BITS = 24  # a sub-sample stores mesh index and triangle index in one int32
_BAKED = 8  # texels of a wall's finest level between two at which light is worked out
_LANES = 16  # sub-samples that are tested at once
_SHADOW_PX = 128
_DEFOCUS = 0.8  # standard deviation of the room's blur, pixels at 256: a front camera of f/2 focused on a face
_CHUNK = 256  # fragments (a surface in a pixel) that are shaded together, each quantity in a row of its own
_PX, _PY, _PZ, _NX, _NY, _NZ, _U, _V, _AO, _INV_Z, _TEXELS, _AREA, _FRONTAL, _WEIGHT, _AR, _AG, _AB, _ROUGH, _LIT = (
    row * _CHUNK for row in range(19)
)  # what is known of a fragment before light falls on it
_VX, _VY, _VZ, _NV, _DR, _DG, _DB, _SR, _SG, _SB, _MR, _MG, _MB = (row * _CHUNK for row in range(19, 32))
_FRAGMENT_ROWS = 32
# Kernels stay in single precision: a plain 1 or 0.5 would promote whole expressions to double.
_0, _1, _HALF, _QUARTER = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(0.25)


class Pinhole(Protocol):
    """What the renderer reads of a camera's intrinsics, in pixels with pixel centres at integers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class Material:
    """How a surface answers light.

    Args:
        specular: reflectance at normal incidence F0 (0.028 skin, 0.04 most dielectrics).
        roughness: GGX roughness 0..1, used where the texture carries no gloss.
        sss: 0..1, how far light bleeds round the terminator (1 = skin, 0 = paper or resin).
        emission: radiance of a white texel that shines by itself (screens); 0 for everything else.
        diffuse: factor on the albedo's diffuse answer (about 0.02 for the glass of a screen that is off).
        mirror: 0..1, sharp reflection of the room, for flat meshes only (glass, glossy print).
    """

    specular: float = 0.04
    roughness: float = 0.5
    sss: float = 0.0
    emission: float = 0.0
    diffuse: float = 1.0
    mirror: float = 0.0

    def packed(self) -> np.ndarray:
        """The six numbers as (6,) float32, in the order of the fields."""
        return np.array([self.specular, self.roughness, self.sss, self.emission, self.diffuse, self.mirror], np.float32)


SKIN = Material(specular=0.028, roughness=0.45, sss=1.0)
PAPER_MATTE = Material(specular=0.03, roughness=0.75)
PAPER_GLOSSY = Material(specular=0.045, roughness=0.22, mirror=0.35)
SCREEN = Material(specular=0.04, roughness=0.12, emission=1.0, diffuse=0.015, mirror=1.0)
BEZEL = Material(specular=0.04, roughness=0.25)
SILICONE = Material(specular=0.035, roughness=0.32, sss=0.55)
LATEX = Material(specular=0.035, roughness=0.42, sss=0.35)
RESIN = Material(specular=0.05, roughness=0.24)
PLASTIC = Material(specular=0.045, roughness=0.36)


_NO_HOLE = np.array([1.0, 1.0, 0.0, 0.0], np.float32)


@dataclass(frozen=True)
class Texture:
    """A mip pyramid: texels (N,5) float32 = linear r, g, b, alpha, roughness (negative: take the material's);
    layout (L,3) int32 = offset, height, width of every level; hole (4,) float32 = smallest u, v and largest u, v of
    the texels that are less than half opaque (largest < smallest where there are none)."""

    texels: np.ndarray
    layout: np.ndarray
    hole: np.ndarray = field(default_factory=lambda: _NO_HOLE.copy())


def make_texture(
    colour: np.ndarray, *, gloss: np.ndarray | None = None, alpha: np.ndarray | None = None, levels: int = 6
) -> Texture:
    """Build the mip pyramid of a texture once, so that frames can share it.

    Args:
        colour: (th,tw,3) or, with alpha last, (th,tw,4) float, linear light; row 0 is v = 0 (the top).
        gloss: (th,tw) float 0..1, smoothness = 1 − GGX roughness; None uses the material's roughness.
        alpha: (th,tw) float, below 0.5 is a hole.
        levels: largest number of levels.

    Returns:
        Texture. About 3 ms for 512 x 512, 0.5 ms for 256 x 256.

    Example:
        >>> make_texture(np.ones((8, 4, 3), np.float32)).layout.tolist()
        [[0, 8, 4], [32, 4, 2], [40, 2, 1]]
    """
    height, width = colour.shape[:2]
    full = np.empty((height, width, 5), np.float32)
    full[..., :3] = colour[..., :3]
    full[..., 3] = 1.0 if alpha is None else alpha
    if alpha is None and colour.shape[2] == 4:
        full[..., 3] = colour[..., 3]
    full[..., 4] = -1.0 if gloss is None else 1.0 - np.asarray(gloss, np.float32)
    return Texture(*_pyramid(full, levels), _hole(full[..., 3]))


def _hole(alpha: np.ndarray) -> np.ndarray:
    """Box (u0, v0, u1, v1) around everything below half opacity."""
    y, x = np.nonzero(alpha < 0.5)
    if not len(y):
        return _NO_HOLE.copy()
    height, width = alpha.shape
    return np.array([x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height], np.float32)


def _pyramid(full: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """(h,w,C) → flat texels (N,C) of all levels and their layout (L,3)."""
    stack = [np.ascontiguousarray(full, np.float32)]
    while len(stack) < levels and min(stack[-1].shape[:2]) >= 2:
        height, width = stack[-1].shape[:2]
        stack.append(_halved(stack[-1], width // 2, height // 2))
    sizes = [level.shape[:2] for level in stack]
    offsets = np.cumsum([0] + [h * w for h, w in sizes[:-1]])
    layout = np.array([(o, h, w) for o, (h, w) in zip(offsets, sizes, strict=True)], np.int32)
    return np.concatenate([level.reshape(-1, full.shape[2]) for level in stack]), layout


def _halved(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area average; OpenCV takes at most four channels where a side is odd."""
    if image.shape[0] % 2 == 0 == image.shape[1] % 2:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    parts = [image[..., :4], image[..., 4:]] if image.shape[2] > 4 else [image]
    small = [cv2.resize(np.ascontiguousarray(p), (width, height), interpolation=cv2.INTER_AREA) for p in parts]
    return np.concatenate([p.reshape(height, width, -1) for p in small], 2)


@dataclass(frozen=True)
class Mesh:
    """One surface in world coordinates.

    Args:
        vertices: (V,3) float32 metres, world.
        triangles: (F,3) int32, counter-clockwise seen from outside.
        uv: (V,2) float32 in 0..1, u to the right and v DOWN the texture image.
        texture: Texture, or a (th,tw,3|4) float linear image that is packed on the fly.
        material: Material.
        object_id: written to `Rendered.object_id`; must be >= 0.
        two_sided: also visible from behind (sheets).
        normals: (V,3) float32 unit normals; None computes them from the triangles.
        weld: (V,) int32, index of the first vertex at the same place, so that normals do not crease at UV seams.
        occlusion: (V,) float32 0..1 share of the sky that a vertex sees (`vertex_occlusion`); None means 1.
        casts_shadow: whether it darkens itself and others under the key light.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: Texture | np.ndarray
    material: Material = SKIN
    object_id: int = 0
    two_sided: bool = False
    normals: np.ndarray | None = None
    weld: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    casts_shadow: bool = True


@dataclass(frozen=True)
class Light:
    """A lamp. `colour` is the irradiance (3,) it gives a surface at the world origin that faces it.

    Args:
        vector: (3,) direction TOWARDS the light, or its position in metres if `point`.
        colour: (3,) linear RGB; 1 makes a white diffuser read 1.
        point: falls off with the square of the distance.
        size: 0..1 apparent size; larger is softer.
        shadow: casts shadows (only the first light with this flag does).
    """

    vector: np.ndarray
    colour: np.ndarray
    point: bool = False
    size: float = 0.1
    shadow: bool = False


@dataclass(frozen=True)
class Lighting:
    """All light of a presentation.

    Args:
        ambient: (4,3) float32: irradiance = ambient[0] + normal · ambient[1:] (first-order spherical harmonics).
        lights: at most 4 are used.
        illuminance: lux on the face for which the image's 1.0 is a white diffuser.
        room: (3,) factor on what the background receives.
        sky: factor on what shines in the background by itself (sky, windows, lit screens); small at night.
        kind: name, for the record.
        cct: correlated colour temperature of the key light in kelvin.
    """

    ambient: np.ndarray
    lights: tuple[Light, ...] = ()
    illuminance: float = 300.0
    room: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky: float = 1.0
    kind: str = ""
    cct: float = 5500.0


def hemisphere(sky: Sequence[float], ground: Sequence[float]) -> np.ndarray:
    """Ambient (4,3) coefficients of a sky above and a ground below (world y is up).

    Example:
        >>> hemisphere((1, 1, 1), (0, 0, 0))[:, 0].tolist()
        [0.5, 0.0, 0.5, 0.0]
    """
    sky, ground = np.asarray(sky, np.float32), np.asarray(ground, np.float32)
    coefficients = np.zeros((4, 3), np.float32)
    coefficients[0], coefficients[2] = (sky + ground) / 2, (sky - ground) / 2
    return coefficients


@dataclass(frozen=True)
class Rect:
    """A textured rectangle of a room: corner of texel (0,0), edges along u (right) and v (down), metres, world.
    texture (th,tw,3) or (th,tw,4) with alpha, float32 linear: albedo, or radiance if `emissive`."""

    origin: tuple[float, float, float]
    edge_u: tuple[float, float, float]
    edge_v: tuple[float, float, float]
    texture: np.ndarray
    emissive: bool = False


@dataclass(frozen=True)
class Room:
    """Packed rectangles: planes (R,9) origin, edge_u, edge_v; texels (T,4) float32; layout (R,L,3) int32 with
    height 0 for absent levels; flags (R,) bit 0 emissive, bit 1 has holes."""

    planes: np.ndarray
    texels: np.ndarray
    layout: np.ndarray
    flags: np.ndarray
    scene_id: str = ""
    kind: str = ""


def build_room(rects: Sequence[Rect], *, scene_id: str = "", kind: str = "", levels: int = 5) -> Room:
    """Pack rectangles into the arrays that the ray-caster reads.

    Args:
        rects: the room's surfaces; the order does not matter.

    Returns:
        Room whose texels are still albedo; `light_room` turns them into radiance.
    """
    planes = np.array([(*r.origin, *r.edge_u, *r.edge_v) for r in rects], np.float32).reshape(-1, 9)
    layout = np.zeros((len(rects), levels, 3), np.int32)
    flags = np.zeros(len(rects), np.int32)
    packed, offset = [], 0
    for i, rect in enumerate(rects):
        texels, part = _pyramid(_with_alpha(rect.texture), levels)
        layout[i, : len(part)] = part + [offset, 0, 0]
        layout[i, len(part) :] = layout[i, len(part) - 1]
        flags[i] = int(rect.emissive) + 2 * int(rect.texture.shape[2] == 4)
        packed.append(texels)
        offset += len(texels)
    return Room(planes, np.concatenate(packed), layout, flags, scene_id, kind)


def _with_alpha(image: np.ndarray) -> np.ndarray:
    if image.shape[2] == 4:
        return image
    return np.concatenate([image, np.ones_like(image[..., :1])], 2)


@dataclass(frozen=True)
class Rendered:
    """image (H,W,3) float32 linear; depth (H,W) float32 metres along the camera's z (inf where nothing is hit);
    object_id (H,W) int16, −1 for the room; uv (H,W,2) float32 of the nearest mesh, NaN elsewhere, or None."""

    image: np.ndarray
    depth: np.ndarray
    object_id: np.ndarray
    uv: np.ndarray | None = None


def project(points: np.ndarray, intrinsics: Pinhole, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project world points with the same pinhole that `render` uses.

    Args:
        points: (N,3) metres, world.
        T_world_camera: (4,4), camera axes x right, y down, z forward.

    Returns:
        px (N,2) float64 pixels, z (N,) float64 metres in front of the camera (px is meaningless where z <= 0).

    Example:
        >>> from types import SimpleNamespace
        >>> cam = SimpleNamespace(width=256, height=256, fx=300.0, fy=300.0, cx=127.5, cy=127.5)
        >>> pose = np.diag([1.0, -1.0, -1.0, 1.0]); pose[2, 3] = 0.5
        >>> px, z = project(np.array([[0.1, 0.0, 0.0]]), cam, pose)
        >>> px.round(1).tolist(), z.tolist()
        ([[187.5, 127.5]], [0.5])
    """
    local = (np.asarray(points, np.float64) - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    z = local[:, 2]
    safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
    x = intrinsics.fx * local[:, 0] / safe + intrinsics.cx
    y = intrinsics.fy * local[:, 1] / safe + intrinsics.cy
    return np.stack([x, y], 1), z


def weld_vertices(vertices: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Index of the first vertex at the same place, for smooth normals over UV seams.

    Args:
        vertices: (V,3) metres, in any pose in which split vertices coincide.

    Returns:
        (V,) int32.

    Example:
        >>> weld_vertices(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]])).tolist()
        [0, 1, 0]
    """
    keys = np.round(np.asarray(vertices) / tolerance).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[inverse.ravel()].astype(np.int32)


def render(
    meshes: Sequence[Mesh],
    room: Room | None,
    lighting: Lighting,
    intrinsics: Pinhole,
    T_world_camera: np.ndarray,
    *,
    supersample: int = 2,
    want_uv: bool = False,
) -> Rendered:
    """Draw meshes in front of a room, in linear light.

    Visibility is tested at supersample² rotated-grid points a pixel; a pixel is shaded once a surface, so that
    silhouettes are smooth at little cost. Textures are filtered through mip levels.

    Args:
        meshes: at most 127 surfaces.
        room: background (already lit, see `light_room`), always behind the meshes; None leaves black at infinity.
        intrinsics: pinhole in pixels of the output.
        T_world_camera: (4,4) pose, camera axes x right, y down, z forward.
        supersample: visibility samples along each side of a pixel, 1 to 4.
        want_uv: also return the texture coordinate seen by every pixel.

    Returns:
        Rendered.

    Raises:
        ValueError: more meshes than can be told apart.
    """
    if len(meshes) > 127:
        raise ValueError(f"render takes at most 127 meshes, got {len(meshes)}: merge some of them.")
    height, width = int(intrinsics.height), int(intrinsics.width)
    rotation, centre = _camera(T_world_camera)
    lens = np.array([intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy], np.float32)
    seen = np.zeros((height * supersample, width * supersample + 2 * _LANES), np.int64)
    prepared = [_prepare(index, mesh, rotation, centre, lens, supersample, seen) for index, mesh in enumerate(meshes)]
    # the two halves of a sub-sample's key; little-endian as everything numba compiles for
    face, inv_z = (seen.view(kind).reshape(*seen.shape, 2) for kind in (np.int32, np.float32))
    image, depth, object_id = _background(room, rotation, centre, lens, face, height, width, supersample)
    uv = np.full((height, width, 2), np.nan, np.float32) if want_uv else np.zeros((0, 0, 2), np.float32)
    lights, ambient = _pack_lighting(lighting)
    shadow = _shadow_map(prepared, lights)
    for index, item in enumerate(prepared):
        _shade(
            index, item, room, lights, ambient, shadow, centre, face, inv_z, supersample, image, depth, object_id, uv
        )
    return Rendered(image, depth, object_id, uv if want_uv else None)


def light_room(room: Room, lighting: Lighting) -> Room:
    """Bake the light into a room's texels, once per clip (about 10 ms).

    Lambert shading per texel from the same lights that the face sees, darker towards the room's corners.

    Returns:
        Room whose texels are radiance, ready for `render`.
    """
    lights, ambient = _pack_lighting(lighting)
    texels = room.texels.copy()
    corners = np.concatenate([room.planes[:, :3], room.planes[:, :3] + room.planes[:, 3:6] + room.planes[:, 6:9]])
    bounds = np.stack([corners.min(0), corners.max(0)]).astype(np.float32)
    gain = np.asarray(lighting.room, np.float32)
    _bake(room.planes, room.layout, room.flags, lights, ambient, gain, bounds, texels)
    for layout in room.layout[(room.flags & 1) == 1]:
        last = layout[layout[:, 1] > 0][-1]
        texels[layout[0, 0] : last[0] + last[1] * last[2], :3] *= np.float32(lighting.sky)
    return replace(room, texels=texels)


def vertex_occlusion(vertices: np.ndarray, triangles: np.ndarray, *, directions: int = 48) -> np.ndarray:
    """Share of the surrounding light that reaches every vertex, once per identity (about 40 ms for a head).

    Depth maps from directions spread over the sphere; a direction counts with its cosine to the normal.

    Args:
        vertices: (V,3) metres; triangles: (F,3) int32.

    Returns:
        (V,) float32 in 0..1; 1 = nothing in the way.

    Source: ambient occlusion by sampled visibility (Zhukov et al., 1998, doi 10.1007/978-3-7091-6453-2_5).
    """
    vertices, triangles = _f32(vertices), np.ascontiguousarray(triangles, np.int32)
    normals = _normals(vertices, triangles, weld_vertices(vertices))
    seen, total = np.zeros(len(vertices), np.float32), np.full(len(vertices), 1e-6, np.float32)
    for k in range(directions):
        y = 1 - 2 * (k + 0.5) / directions
        angle, radius = k * 2.399963, np.sqrt(1 - y * y)
        to_light = np.array([radius * np.cos(angle), y, radius * np.sin(angle)], np.float32)
        frame = _light_frame(vertices, to_light)
        depth = np.full((_SHADOW_PX, _SHADOW_PX), 4.0, np.float32)
        _raster_depth(vertices, triangles, frame, depth)
        _count_visible(vertices, normals, frame, depth, seen, total)
    return seen / total


# ---- preparation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prepared:
    mesh: Mesh
    vertices: np.ndarray
    triangles: np.ndarray
    packed: np.ndarray
    texture: Texture
    lens: np.ndarray
    bounds: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))


def _f32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _camera(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _f32(np.asarray(pose)[:3, :3]), _f32(np.asarray(pose)[:3, 3])


def _prepare(index, mesh, rotation, centre, lens, samples, seen) -> _Prepared:
    """Project a mesh, draw it into the visibility buffer and gather what shading needs."""
    vertices, triangles = _f32(mesh.vertices), np.ascontiguousarray(mesh.triangles, np.int32)
    weld = np.zeros(0, np.int32) if mesh.weld is None else np.ascontiguousarray(mesh.weld, np.int32)
    normals = _normals(vertices, triangles, weld) if mesh.normals is None else _f32(mesh.normals)
    occlusion = np.ones(len(vertices), np.float32) if mesh.occlusion is None else _f32(mesh.occlusion)
    texture = mesh.texture if isinstance(mesh.texture, Texture) else make_texture(mesh.texture)
    screen = _to_screen(vertices, rotation, centre, lens, samples)
    uv = _f32(mesh.uv)
    bounds = _raster(
        screen, triangles, uv, texture.texels, texture.layout, texture.hole, mesh.two_sided,
        index << _TRI_BITS, seen,
    )  # fmt: skip
    packed = _packed(screen, vertices, normals, uv, occlusion)
    return _Prepared(mesh, vertices, triangles, packed, texture, lens, bounds)


def _pack_lighting(lighting: Lighting) -> tuple[np.ndarray, np.ndarray]:
    """Lights as (n,9) float32: vector, colour, point, size, shadow; and ambient (4,3)."""
    rows = [(*lt.vector, *lt.colour, float(lt.point), lt.size, float(lt.shadow)) for lt in lighting.lights[:4]]
    return np.array(rows, np.float32).reshape(-1, 9), _f32(lighting.ambient)


def _background(room, rotation, centre, lens, face, height, width, samples):
    image = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    object_id = np.full((height, width), -1, np.int16)
    if room is not None and len(room.planes):
        coefs = (_room_rays(room.planes, centre) @ rotation).astype(np.float32)
        inv, hit = np.zeros((height, width), np.float32), np.full((height, width), -1, np.int16)
        _room_visibility(coefs, room.layout, room.texels, room.flags, lens, inv, hit)
        _room_shade(coefs, room.layout, room.texels, room.flags, lens, inv, hit, face, samples, image, depth)
        image = _defocused(image, face, samples)
    return image, depth, object_id


def _defocused(image: np.ndarray, face: np.ndarray, samples: int) -> np.ndarray:
    """Blur the room, on which no phone focuses, where nothing covers it; `image` is weighted by what is free."""
    height, width = image.shape[:2]
    free = np.empty((height, width), np.float32)
    _free_share(face, samples, free)
    sigma = _DEFOCUS * width / 256
    soft = cv2.GaussianBlur(image, (5, 5), sigma)
    weight = cv2.GaussianBlur(free, (5, 5), sigma)
    soft *= (free / np.maximum(weight, np.float32(1e-3)))[..., None]
    return soft


@nb.njit(**_JIT)
def _room_rays(planes, origin):
    """(R,3,3) float64 rows q, uq, vq: for a ray o + t·d, q·d = 1/t and (uq·d)/(q·d) = u on the rectangle, likewise v."""
    out = np.empty((planes.shape[0], 3, 3), np.float64)
    p = np.empty((4, 3), np.float64)
    for r in range(planes.shape[0]):
        for k in range(3):
            p[0, k], p[1, k], p[2, k] = origin[k] - planes[r, k], planes[r, 3 + k], planes[r, 6 + k]
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            p[3, k] = p[1, i] * p[2, j] - p[1, j] * p[2, i]
        area = p[3, 0] ** 2 + p[3, 1] ** 2 + p[3, 2] ** 2
        height = -(p[3, 0] * p[0, 0] + p[3, 1] * p[0, 1] + p[3, 2] * p[0, 2])
        height = 1e-9 if abs(height) < 1e-9 else height
        along_u, along_v = 0.0, 0.0
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            out[r, 0, k] = p[3, k] / height
            out[r, 1, k] = (p[2, i] * p[3, j] - p[2, j] * p[3, i]) / area
            out[r, 2, k] = (p[3, i] * p[1, j] - p[3, j] * p[1, i]) / area
            along_u += p[0, k] * out[r, 1, k]
            along_v += p[0, k] * out[r, 2, k]
        for k in range(3):
            out[r, 1, k] += along_u * out[r, 0, k]
            out[r, 2, k] += along_v * out[r, 0, k]
    return out


@dataclass(frozen=True)
class _Shadow:
    light: int
    frame: np.ndarray
    moments: np.ndarray


def _shadow_map(prepared: list[_Prepared], lights: np.ndarray) -> _Shadow:
    """Variance shadow map of the key light (Donnelly & Lauritzen, 2006, doi 10.1145/1111411.1111440)."""
    casters = [p for p in prepared if p.mesh.casts_shadow]
    keys = np.flatnonzero(lights[:, 8] > 0)
    if not len(keys) or not casters:
        return _Shadow(-1, np.zeros((4, 3), np.float32), np.zeros((1, 1, 2), np.float32))
    key = lights[keys[0]]
    boxes = np.concatenate([_bounds(p.vertices) for p in casters])
    middle = (boxes.min(0) + boxes.max(0)) / 2
    to_light = key[:3] - middle if key[6] else key[:3]
    frame = _light_frame(boxes, to_light)
    depth = np.full((_SHADOW_PX, _SHADOW_PX), 2.5, np.float32)
    for p in casters:
        _raster_depth(p.vertices, p.triangles, frame, depth)
    moments = cv2.GaussianBlur(np.dstack([depth, depth * depth]), (0, 0), 0.9 + 5.0 * float(key[7]))
    return _Shadow(int(keys[0]), frame, moments)


def _light_frame(vertices: np.ndarray, to_light: np.ndarray) -> np.ndarray:
    """Rows: x, y, depth axes scaled so that the casters fill −1..1, and the centre."""
    low, high = (_bounds(vertices)[k].astype(np.float64) for k in range(2))
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2 + 1e-6
    z = np.asarray(to_light, np.float64) / np.linalg.norm(to_light)
    x = np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z)
    x /= np.linalg.norm(x)
    return _f32(np.stack([x / radius, np.cross(z, x) / radius, -z / radius, centre]))


def _shade(index, item, room, lights, ambient, shadow, centre, face, inv_z, samples, image, depth, object_id, uv):
    """Shade the pixels in which one mesh is visible."""
    mesh, material = item.mesh, item.mesh.material.packed()
    mirror = np.zeros((0, 3, 3), np.float32)
    origin = centre
    if material[5] > 0 and room is not None and len(mesh.triangles):
        origin = _mirrored(centre, item.vertices, item.triangles)
        mirror = _f32(_room_rays(room.planes, origin))
    texels, layout, flags = (room.texels, room.layout, room.flags) if len(mirror) else _NO_ROOM
    _shade_mesh(
        index << _TRI_BITS, item.bounds, samples, face, inv_z, item.packed, item.triangles, item.texture.texels,
        item.texture.layout, material, mesh.object_id, lights, _wrap_terms(lights, material), ambient, shadow.light,
        shadow.frame, shadow.moments, centre, item.lens, mirror, origin, texels, layout, flags, image, depth,
        object_id, uv, np.empty(_FRAGMENT_ROWS * _CHUNK, np.float32), np.empty((_CHUNK, 3), np.int32),
    )  # fmt: skip


def _wrap_terms(lights: np.ndarray, material: np.ndarray) -> np.ndarray:
    """(n,7) float32 a light: how far its diffuse light wraps round the terminator in r, g, b, the factor that keeps
    its energy in each, and the cosine below which nothing arrives."""
    wrap = 0.5 * lights[:, 7:8] + material[2] * np.array([0.30, 0.12, 0.07], np.float32)
    end = -(0.5 * lights[:, 7:8] + 0.32 * material[2])
    return _f32(np.hstack([wrap, 1.0 / (1.0 + wrap) ** 2, end]))


_NO_ROOM = (np.zeros((1, 4), np.float32), np.zeros((0, 1, 3), np.int32), np.zeros(0, np.int32))


def _mirrored(centre: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The camera's mirror image behind the mesh's mean plane, from which reflections are seen."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a).sum(0).astype(np.float64)
    normal /= np.linalg.norm(normal) + 1e-12
    return _f32(centre - 2 * ((centre - vertices.mean(0)) @ normal) * normal)


# ---- kernels: geometry -------------------------------------------------------------------------------------------


@nb.njit(**_JIT)
def _bounds(vertices):
    """(2,3) smallest and largest coordinates."""
    out = np.empty((2, 3), np.float32)
    for k in range(3):
        low, high = vertices[0, k], vertices[0, k]
        for i in range(1, vertices.shape[0]):
            low, high = min(low, vertices[i, k]), max(high, vertices[i, k])
        out[0, k], out[1, k] = low, high
    return out


@nb.njit(**_JIT)
def _normals(vertices, triangles, weld):
    """Area-weighted unit vertex normals (V,3)."""
    n = vertices.shape[0]
    out = np.zeros((n, 3), np.float32)
    welded = weld.shape[0] == n
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in range(3):
            j = triangles[i, k]
            if welded:
                j = weld[j]
            out[j, 0] += nx
            out[j, 1] += ny
            out[j, 2] += nz
    for j in range(n):
        s = weld[j] if welded else j
        if s == j:
            norm = _1 / np.sqrt(out[j, 0] ** 2 + out[j, 1] ** 2 + out[j, 2] ** 2 + np.float32(1e-30))
            for k in range(3):
                out[j, k] *= norm
        else:
            for k in range(3):
                out[j, k] = out[s, k]
    return out


@nb.njit(**_JIT)
def _to_screen(vertices, rotation, centre, lens, samples):
    """(V,3): x and y in sub-sample units, 1/z (−1 for what is too near or behind)."""
    out = np.empty((vertices.shape[0], 3), np.float32)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0] - centre[0], vertices[i, 1] - centre[1], vertices[i, 2] - centre[2]
        xc = rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0] * z
        yc = rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1] * z
        zc = rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2] * z
        if zc < _NEAR:
            out[i, 2] = -1.0
            continue
        inv = 1.0 / zc
        out[i, 0] = (lens[0] * xc * inv + lens[2] + 0.5) * samples - 0.5
        out[i, 1] = (lens[1] * yc * inv + lens[3] + 0.5) * samples - 0.5
        out[i, 2] = inv
    return out


@nb.njit(**_JIT)
def _packed(screen, vertices, normals, uv, occlusion):
    """(V,12) x, y, 1/z on the screen, place, normal, u, v, occlusion: what a pixel needs of a vertex in one line."""
    out = np.empty((vertices.shape[0], 12), np.float32)
    for i in range(vertices.shape[0]):
        for k in range(3):
            out[i, k], out[i, 3 + k], out[i, 6 + k] = screen[i, k], vertices[i, k], normals[i, k]
        out[i, 9], out[i, 10], out[i, 11] = uv[i, 0], uv[i, 1], occlusion[i]
    return out


@nb.njit(**_KERNEL)
def _raster(screen, triangles, uv, texels, layout, hole, two_sided, tag, seen):
    """Z-buffer all triangles; returns the touched rectangle x0, x1, y0, y1 in sub-samples (x1 < x0 if none).

    `seen` holds a key a sub-sample: the bits of 1/z, which order like the number, above 1 + tag + triangle. The
    larger key wins, so that a test and its two stores are one maximum, done for `_LANES` sub-samples at once.
    """
    height, width = seen.shape[0], seen.shape[1] - 2 * _LANES
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    bx0, bx1, by0, by1 = width, -1, height, -1
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, y0, q0 = screen[a, 0], screen[a, 1], screen[a, 2]
        x1, y1, q1 = screen[b, 0] - x0, screen[b, 1] - y0, screen[b, 2]
        x2, y2, q2 = screen[c, 0] - x0, screen[c, 1] - y0, screen[c, 2]
        area = x1 * y2 - x2 * y1
        if area >= _0 and not (two_sided and area > _0):
            continue
        if q0 < _0 or q1 < _0 or q2 < _0:
            continue
        left, top = max(x0 + min(min(x1, x2), _0) - _QUARTER, _0), max(y0 + min(min(y1, y2), _0) - _QUARTER, _0)
        xa, ya = int(np.ceil(left)), int(np.ceil(top))
        xb = int(np.floor(min(x0 + max(max(x1, x2), _0) + _QUARTER, right)))
        yb = int(np.floor(min(y0 + max(max(y1, y2), _0) + _QUARTER, bottom)))
        if xa > xb or ya > yb:
            continue
        inv = _1 / area
        d1, d2 = q1 - q0, q2 - q0
        e1x, e1y, e2x, e2y = y2 * inv, -x2 * inv, -y1 * inv, x1 * inv
        name = np.int64(tag + i + 1)
        holes = _near_hole(uv, a, b, c, hole)
        wide, slack1, slack2 = xb - xa >= _LANES, abs(e1y) * _QUARTER, abs(e2y) * _QUARTER
        for y in range(ya, yb + 1):
            px = (_QUARTER if y & 1 else -_QUARTER) - x0
            py = np.float32(y) - y0
            r1, r2 = e1x * px + e1y * py, e2x * px + e2y * py
            lo, hi = xa, xb
            if wide:  # the row's stretch inside the triangle, a little too long for the samples' stagger
                lo, hi = _narrowed(lo, hi, r1 + slack1, e1x)
                lo, hi = _narrowed(lo, hi, r2 + slack2, e2x)
                lo, hi = _narrowed(lo, hi, _1 - r1 - r2 + slack1 + slack2, -e1x - e2x)
            if holes:
                for x in range(lo, hi + 1):
                    w1, w2, q = _edges(r1, r2, e1x, e1y, e2x, e2y, q0, d1, d2, x)
                    if min(min(w1, w2), _1 - w1 - w2) < _0:
                        continue
                    w0, over = (_1 - w1 - w2) * q0, _1 / q
                    u = (w0 * uv[a, 0] + w1 * q1 * uv[b, 0] + w2 * q2 * uv[c, 0]) * over
                    v = (w0 * uv[a, 1] + w1 * q1 * uv[b, 1] + w2 * q2 * uv[c, 1]) * over
                    if _alpha(texels, layout[0, 0], layout[0, 1], layout[0, 2], u, v) >= _HALF:
                        seen[y, x] = max(seen[y, x], (np.int64(np.float32(q).view(np.int32)) << 32) | name)
                continue
            for start in range(lo, hi + 1, _LANES):
                base = np.uint64(start)
                for lane in range(_LANES):  # a fixed count without branches: compiled to vector instructions
                    w1, w2, q = _edges(r1, r2, e1x, e1y, e2x, e2y, q0, d1, d2, start + lane)
                    key = (np.int64(np.float32(q).view(np.int32)) << 32) | name
                    key = key if min(min(w1, w2), _1 - w1 - w2) >= _0 else np.int64(0)
                    at = base + np.uint64(lane)
                    seen[y, at] = max(seen[y, at], key)
        bx0, bx1, by0, by1 = min(bx0, xa), max(bx1, xb), min(by0, ya), max(by1, yb)
    return bx0, bx1, by0, by1


@nb.njit(**_INLINE)
def _edges(r1, r2, e1x, e1y, e2x, e2y, q0, d1, d2, x):
    """Weights of the second and third corner and 1/z at a sub-sample of a row; odd columns are staggered upwards."""
    fx = np.float32(x)
    lift = _QUARTER - _HALF * np.float32(x & 1)
    w1, w2 = r1 + e1x * fx + e1y * lift, r2 + e2x * fx + e2y * lift
    return w1, w2, q0 + w1 * d1 + w2 * d2


@nb.njit(**_INLINE)
def _narrowed(lo, hi, start, step):
    """Integers of lo..hi at which start + step · x >= 0."""
    if abs(step) < np.float32(1e-12):
        return (lo, hi) if start >= _0 else (lo, lo - 1)
    x = min(max(-start / step, np.float32(-1e6)), np.float32(1e6))
    if step > _0:
        return max(lo, int(np.ceil(x))), hi
    return lo, min(hi, int(np.floor(x)))


@nb.njit(**_INLINE)
def _near_hole(uv, a, b, c, hole):
    """Whether a triangle's box in the texture meets the box of what is cut out."""
    if hole[2] < hole[0]:
        return False
    ua, ub, uc, va, vb, vc = uv[a, 0], uv[b, 0], uv[c, 0], uv[a, 1], uv[b, 1], uv[c, 1]
    if max(max(ua, ub), uc) < hole[0] or min(min(ua, ub), uc) > hole[2]:
        return False
    return max(max(va, vb), vc) >= hole[1] and min(min(va, vb), vc) <= hole[3]


@nb.njit(**_INLINE)
def _alpha(texels, offset, height, width, u, v):
    x = min(max(int(u * np.float32(width)), 0), width - 1)
    y = min(max(int(v * np.float32(height)), 0), height - 1)
    return texels[offset + y * width + x, 3]


@nb.njit(**_JIT)
def _raster_depth(vertices, triangles, frame, depth):
    """Nearest depth towards a light, orthographic; frame as `_light_frame` gives it."""
    n = depth.shape[0]
    half, end = np.float32(n) * _HALF, np.float32(n - 1)
    p = np.empty((vertices.shape[0], 3), np.float32)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0] - frame[3, 0], vertices[i, 1] - frame[3, 1], vertices[i, 2] - frame[3, 2]
        p[i, 0] = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z + _1) * half - _HALF
        p[i, 1] = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z + _1) * half - _HALF
        p[i, 2] = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        x0, y0, z0 = p[a, 0], p[a, 1], p[a, 2]
        x1, y1, x2, y2 = p[b, 0] - x0, p[b, 1] - y0, p[c, 0] - x0, p[c, 1] - y0
        xa, xb = int(np.ceil(max(x0 + min(min(x1, x2), _0), _0))), int(min(x0 + max(max(x1, x2), _0), end))
        ya, yb = int(np.ceil(max(y0 + min(min(y1, y2), _0), _0))), int(min(y0 + max(max(y1, y2), _0), end))
        area = x1 * y2 - x2 * y1
        if xa > xb or ya > yb or area == _0:
            continue
        inv = _1 / area
        d1, d2 = p[b, 2] - z0, p[c, 2] - z0
        for y in range(ya, yb + 1):
            py = np.float32(y) - y0
            for x in range(xa, xb + 1):
                px = np.float32(x) - x0
                w1, w2 = (px * y2 - x2 * py) * inv, (x1 * py - px * y1) * inv
                z = z0 + w1 * d1 + w2 * d2
                if (min(min(w1, w2), _1 - w1 - w2) >= _0) & (z < depth[y, x]):
                    depth[y, x] = z


@nb.njit(**_JIT)
def _count_visible(vertices, normals, frame, depth, seen, total):
    n = depth.shape[0]
    radius = 1.0 / np.sqrt(frame[2, 0] ** 2 + frame[2, 1] ** 2 + frame[2, 2] ** 2)
    for i in range(vertices.shape[0]):
        cosine = -(frame[2, 0] * normals[i, 0] + frame[2, 1] * normals[i, 1] + frame[2, 2] * normals[i, 2]) * radius
        if cosine <= 0.02:
            continue
        x, y, z = vertices[i, 0] - frame[3, 0], vertices[i, 1] - frame[3, 1], vertices[i, 2] - frame[3, 2]
        px = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z + 1) * n / 2
        py = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z + 1) * n / 2
        pz = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
        jx, jy = min(max(int(px), 0), n - 1), min(max(int(py), 0), n - 1)
        total[i] += cosine
        if pz < depth[jy, jx] + 0.03:
            seen[i] += cosine


# ---- kernels: the room -------------------------------------------------------------------------------------------


@nb.njit(**_KERNEL)
def _room_visibility(coefs, layout, texels, flags, lens, inv, hit):
    """Nearest rectangle per pixel centre: 1/z and its index."""
    height, width = inv.shape
    sx = np.float32(1.0) / lens[0]
    for r in range(coefs.shape[0]):
        c = coefs[r]
        holes = flags[r] & 2
        for y in range(height):
            dy = (np.float32(y) - lens[3]) / lens[1]
            d0 = -lens[2] * sx
            q0, qs = c[0, 0] * d0 + c[0, 1] * dy + c[0, 2], c[0, 0] * sx
            u0, us = c[1, 0] * d0 + c[1, 1] * dy + c[1, 2], c[1, 0] * sx
            v0, vs = c[2, 0] * d0 + c[2, 1] * dy + c[2, 2], c[2, 0] * sx
            lo, hi = _span(q0, qs, u0, us, v0, vs, width)
            for x in range(lo, hi):
                q = q0 + qs * x
                if q <= inv[y, x]:
                    continue
                if holes:
                    u, v = (u0 + us * x) / q, (v0 + vs * x) / q
                    if _alpha(texels, layout[r, 0, 0], layout[r, 0, 1], layout[r, 0, 2], u, v) < _HALF:
                        continue
                inv[y, x] = q
                hit[y, x] = r


@nb.njit(**_INLINE)
def _span(q0, qs, u0, us, v0, vs, width):
    """Pixels of a row inside a rectangle: every bound is linear in x, so the row is one interval."""
    lo, hi = 0.0, width - 1.0
    lo, hi = _cut(lo, hi, q0 - 1e-3, qs)
    lo, hi = _cut(lo, hi, u0, us)
    lo, hi = _cut(lo, hi, q0 - u0, qs - us)
    lo, hi = _cut(lo, hi, v0, vs)
    lo, hi = _cut(lo, hi, q0 - v0, qs - vs)
    return int(np.ceil(lo)), int(np.floor(hi)) + 1


@nb.njit(**_INLINE)
def _cut(lo, hi, a, b):
    """Keep of [lo, hi] where a + b·x >= 0."""
    if abs(b) < 1e-12:
        return (lo, hi) if a >= 0 else (1.0, 0.0 - 1.0)
    x = -a / b
    if b > 0:
        return max(lo, x), hi
    return lo, min(hi, x)


@nb.njit(**_KERNEL)
def _room_shade(coefs, layout, texels, flags, lens, inv, hit, face, samples, image, depth):
    """Colour of the room where meshes leave any of a pixel free; edges between rectangles get four samples."""
    height, width = inv.shape
    share = np.float32(1.0 / (samples * samples))
    sx, sy = _1 / lens[0], _1 / lens[1]
    for y in range(height):
        dy = (np.float32(y) - lens[3]) * sy
        for x in range(width):
            r = hit[y, x]
            if r >= 0:
                depth[y, x] = _1 / inv[y, x]
            free = _free(face, samples, x, y)
            if free == 0:
                continue
            weight = np.float32(free) * share
            dx = (np.float32(x) - lens[2]) * sx
            left, right = hit[y, max(x - 1, 0)], hit[y, min(x + 1, width - 1)]
            up, down = hit[max(y - 1, 0), x], hit[min(y + 1, height - 1), x]
            if left == r and right == r and up == r and down == r:
                if r >= 0:
                    cr, cg, cb = _room_colour(coefs, r, layout, texels, sx, sy, dx, dy)
                    image[y, x, 0] = weight * cr
                    image[y, x, 1] = weight * cg
                    image[y, x, 2] = weight * cb
                continue
            for s in range(4):
                ex = dx + (np.float32(-0.375) + _QUARTER * np.float32(s)) * sx
                ey = dy + _STAGGER[s] * sy
                found = _nearest(coefs, layout, texels, flags, r, left, right, up, down, ex, ey)
                if found >= 0:
                    cr, cg, cb = _room_colour(coefs, found, layout, texels, sx, sy, ex, ey)
                    image[y, x, 0] += _QUARTER * weight * cr
                    image[y, x, 1] += _QUARTER * weight * cg
                    image[y, x, 2] += _QUARTER * weight * cb


@nb.njit(**_KERNEL)
def _free_share(face, samples, out):
    share = np.float32(1.0 / (samples * samples))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = np.float32(_free(face, samples, x, y)) * share


@nb.njit(**_INLINE)
def _free(face, samples, x, y):
    """How many samples of a pixel no mesh covers."""
    top, left = y * samples, x * samples
    if samples == 2:
        above = np.int32(face[top, left, 0] == 0) + np.int32(face[top, left + 1, 0] == 0)
        return above + np.int32(face[top + 1, left, 0] == 0) + np.int32(face[top + 1, left + 1, 0] == 0)
    free = 0
    for j in range(samples):
        for i in range(samples):
            free += np.int32(face[top + j, left + i, 0] == 0)
    return free


_STAGGER = np.array([0.125, -0.375, 0.375, -0.125], np.float32)


@nb.njit(**_INLINE)
def _nearest(coefs, layout, texels, flags, r, left, right, up, down, dx, dy):
    """Which of a pixel's and its neighbours' rectangles a ray meets first."""
    best, found = np.float32(1e-3), -1
    for k in range(5):
        n = r if k == 0 else left if k == 1 else right if k == 2 else up if k == 3 else down
        if n >= 0 and n != found and (k == 0 or n != r):
            q = _hit(coefs, n, layout, texels, flags[n], dx, dy)
            if q > best:
                best, found = q, n
    return found if found >= 0 else r


@nb.njit(**_INLINE)
def _hit(c, r, layout, texels, flag, dx, dy):
    """1/z where the ray (dx, dy, 1) meets the rectangle, else 0."""
    q = c[r, 0, 0] * dx + c[r, 0, 1] * dy + c[r, 0, 2]
    u = c[r, 1, 0] * dx + c[r, 1, 1] * dy + c[r, 1, 2]
    v = c[r, 2, 0] * dx + c[r, 2, 1] * dy + c[r, 2, 2]
    if q <= _0 or u < _0 or v < _0 or u > q or v > q:
        return _0
    if flag & 2 and _alpha(texels, layout[r, 0, 0], layout[r, 0, 1], layout[r, 0, 2], u / q, v / q) < _HALF:
        return _0
    return q


@nb.njit(**_INLINE)
def _room_colour(c, r, layout, texels, sx, sy, dx, dy):
    """Bilinear sample at a mip level that fits the pixel's footprint."""
    inv = _1 / (c[r, 0, 0] * dx + c[r, 0, 1] * dy + c[r, 0, 2])
    u = (c[r, 1, 0] * dx + c[r, 1, 1] * dy + c[r, 1, 2]) * inv
    v = (c[r, 2, 0] * dx + c[r, 2, 1] * dy + c[r, 2, 2]) * inv
    h, w = np.float32(layout[r, 0, 1]) * inv, np.float32(layout[r, 0, 2]) * inv
    ux, uy = (c[r, 1, 0] - u * c[r, 0, 0]) * sx * w, (c[r, 1, 1] - u * c[r, 0, 1]) * sy * w
    vx, vy = (c[r, 2, 0] - v * c[r, 0, 0]) * sx * h, (c[r, 2, 1] - v * c[r, 0, 1]) * sy * h
    footprint = max(np.float32(0.75) * max(ux * ux + vx * vx, uy * uy + vy * vy), _1)
    return _sample_room(texels, layout, r, _HALF * _log2(footprint), u, v)


@nb.njit(**_INLINE)
def _log2(x):
    """log2 of a positive float32 from its bits, within 0.05: enough to choose a mip level."""
    return np.float32(np.float32(x).view(np.int32)) * np.float32(1.0 / 8388608.0) - np.float32(126.957)


@nb.njit(**_INLINE)
def _mip(levels, level):
    """Finer of two mip levels and the weight of the coarser one; most pixels need one level only."""
    top = levels - 1
    level = min(max(level, _0), np.float32(top))
    low = int(level)
    part = (level - np.float32(low)) * np.float32(1.8) - np.float32(0.4)
    if part >= _1:
        return low + 1, _0
    return low, max(part, _0) if low < top else _0


@nb.njit(**_INLINE)
def _sample_room(texels, layout, rect, level, u, v):
    low, part = _mip(layout.shape[1], level)
    r, g, b = _bilinear_room(texels, layout, rect, low, u, v)
    if part > _0:
        r2, g2, b2 = _bilinear_room(texels, layout, rect, low + 1, u, v)
        r, g, b = r + part * (r2 - r), g + part * (g2 - g), b + part * (b2 - b)
    return r, g, b


@nb.njit(**_INLINE)
def _bilinear_room(texels, layout, r, k, u, v):
    i00, i01, i10, i11, fx, fy = _taps(layout[r, k, 0], layout[r, k, 1], layout[r, k, 2], u, v)
    w11 = fx * fy
    w01, w10 = fx - w11, fy - w11
    w00 = _1 - fx - w10
    return (
        w00 * texels[i00, 0] + w01 * texels[i01, 0] + w10 * texels[i10, 0] + w11 * texels[i11, 0],
        w00 * texels[i00, 1] + w01 * texels[i01, 1] + w10 * texels[i10, 1] + w11 * texels[i11, 1],
        w00 * texels[i00, 2] + w01 * texels[i01, 2] + w10 * texels[i10, 2] + w11 * texels[i11, 2],
    )


@nb.njit(**_INLINE)
def _taps(offset, height, width, u, v):
    """Indices of the four texels around (u, v) and the fractions between them."""
    w, h = np.float32(width), np.float32(height)
    x, y = min(max(u * w - _HALF, _0), w - _1), min(max(v * h - _HALF, _0), h - _1)
    xi, yi = np.int32(x), np.int32(y)
    right, down = np.int32(xi + 1 < width), width if yi + 1 < height else np.int32(0)
    here = np.uint32(offset + yi * width + xi)
    below = np.uint32(here + np.uint32(down))
    return here, here + np.uint32(right), below, below + np.uint32(right), x - np.float32(xi), y - np.float32(yi)


@nb.njit(**_KERNEL)
def _bake(planes, layout, flags, lights, ambient, gain, bounds, texels):
    """Multiply every texel of every level by the light that arrives there."""
    for r in range(planes.shape[0]):
        p = planes[r]
        nx, ny, nz = p[4] * p[8] - p[5] * p[7], p[5] * p[6] - p[3] * p[8], p[3] * p[7] - p[4] * p[6]
        norm = _1 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-20))
        mx, my, mz = p[0] + _HALF * (p[3] + p[6]), p[1] + _HALF * (p[4] + p[7]), p[2] + _HALF * (p[5] + p[8])
        if nx * mx + ny * my + nz * (mz - np.float32(0.3)) > _0:  # towards the place where face and camera are
            norm = -norm
        nx, ny, nz = nx * norm, ny * norm, nz * norm
        done = -1
        for k in range(layout.shape[1]):
            offset, height, width = layout[r, k, 0], layout[r, k, 1], layout[r, k, 2]
            if offset <= done:
                break
            done = offset
            over_height, over_width = _1 / np.float32(height), _1 / np.float32(width)
            step = max(_BAKED >> k, 1)
            share = _1 / np.float32(step)
            if flags[r] & 1:
                for i in range(offset, offset + height * width):
                    for ch in range(3):
                        texels[i, ch] *= gain[ch]
                continue
            for y in range(height):
                v = (np.float32(y) + _HALF) * over_height
                bx, by, bz = p[0] + v * p[6], p[1] + v * p[7], p[2] + v * p[8]
                u = _HALF * over_width
                r1, g1, b1 = _arriving(bx + u * p[3], by + u * p[4], bz + u * p[5], nx, ny, nz, lights, ambient, bounds)
                for start in range(0, width, step):  # light changes slowly along a wall
                    r0, g0, b0 = r1, g1, b1
                    u = (np.float32(start + step) + _HALF) * over_width
                    r1, g1, b1 = _arriving(
                        bx + u * p[3], by + u * p[4], bz + u * p[5], nx, ny, nz, lights, ambient, bounds
                    )
                    for x in range(start, min(start + step, width)):
                        i, part = offset + y * width + x, np.float32(x - start) * share
                        texels[i, 0] *= gain[0] * (r0 + part * (r1 - r0))
                        texels[i, 1] *= gain[1] * (g0 + part * (g1 - g0))
                        texels[i, 2] *= gain[2] * (b0 + part * (b1 - b0))


@nb.njit(**_JIT)
def _arriving(px, py, pz, nx, ny, nz, lights, ambient, bounds):
    r, g, b = _irradiance(px, py, pz, nx, ny, nz, lights, ambient)
    dark = _corner(px, py, pz, nx, ny, nz, bounds)
    return r * dark, g * dark, b * dark


@nb.njit(**_INLINE)
def _irradiance(px, py, pz, nx, ny, nz, lights, ambient):
    r = ambient[0, 0] + nx * ambient[1, 0] + ny * ambient[2, 0] + nz * ambient[3, 0]
    g = ambient[0, 1] + nx * ambient[1, 1] + ny * ambient[2, 1] + nz * ambient[3, 1]
    b = ambient[0, 2] + nx * ambient[1, 2] + ny * ambient[2, 2] + nz * ambient[3, 2]
    for k in range(lights.shape[0]):
        lx, ly, lz, fall = _towards(lights, k, px, py, pz)
        cosine = max(np.float32(0.15) + np.float32(0.85) * (nx * lx + ny * ly + nz * lz), np.float32(0.0)) * fall
        r += lights[k, 3] * cosine
        g += lights[k, 4] * cosine
        b += lights[k, 5] * cosine
    return max(r, np.float32(0.01)), max(g, np.float32(0.01)), max(b, np.float32(0.01))


@nb.njit(**_INLINE)
def _towards(lights, k, px, py, pz):
    """Unit vector to a light and its fall-off relative to the origin."""
    lx, ly, lz = lights[k, 0], lights[k, 1], lights[k, 2]
    fall = np.float32(1.0)
    if lights[k, 6] > 0:
        reference = lx * lx + ly * ly + lz * lz
        lx, ly, lz = lx - px, ly - py, lz - pz
        fall = reference / (lx * lx + ly * ly + lz * lz + np.float32(0.08))
        fall = min(fall, np.float32(3.0))
    norm = np.float32(1.0) / np.sqrt(lx * lx + ly * ly + lz * lz + np.float32(1e-12))
    return lx * norm, ly * norm, lz * norm, fall


@nb.njit(**_INLINE)
def _corner(px, py, pz, nx, ny, nz, bounds):
    """Darkening where a surface meets walls that run across it."""
    dark = np.float32(1.0)
    for axis in range(3):
        n = nx if axis == 0 else ny if axis == 1 else nz
        p = px if axis == 0 else py if axis == 1 else pz
        near = min(p - bounds[0, axis], bounds[1, axis] - p)
        reach = np.float32(0.55)
        if near < reach:
            fade = _1 - max(near, _0) / reach
            dark *= _1 - (_1 - n * n) * np.float32(0.42) * fade * fade
    return dark


# ---- kernels: meshes ---------------------------------------------------------------------------------------------


@nb.njit(**_INLINE)
def _sample_mesh(texels, layout, level, u, v):
    low, part = _mip(layout.shape[0], level)
    r, g, b, gloss = _bilinear_mesh(texels, layout, low, u, v)
    if part > _0:
        r2, g2, b2, gloss2 = _bilinear_mesh(texels, layout, low + 1, u, v)
        r, g, b, gloss = r + part * (r2 - r), g + part * (g2 - g), b + part * (b2 - b), gloss + part * (gloss2 - gloss)
    return r, g, b, gloss


@nb.njit(**_INLINE)
def _bilinear_mesh(texels, layout, k, u, v):
    i00, i01, i10, i11, fx, fy = _taps(layout[k, 0], layout[k, 1], layout[k, 2], u, v)
    w11 = fx * fy
    w01, w10 = fx - w11, fy - w11
    w00 = _1 - fx - w10
    return (
        w00 * texels[i00, 0] + w01 * texels[i01, 0] + w10 * texels[i10, 0] + w11 * texels[i11, 0],
        w00 * texels[i00, 1] + w01 * texels[i01, 1] + w10 * texels[i10, 1] + w11 * texels[i11, 1],
        w00 * texels[i00, 2] + w01 * texels[i01, 2] + w10 * texels[i10, 2] + w11 * texels[i11, 2],
        w00 * texels[i00, 4] + w01 * texels[i01, 4] + w10 * texels[i10, 4] + w11 * texels[i11, 4],
    )


@nb.njit(**_KERNEL)
def _shade_mesh(
    tag, bounds, samples, face, inv_z, p, triangles, texels, layout, material, object_id, lights, wraps, ambient, key,
    frame, moments, centre, lens, mirror, origin, room_texels, room_layout, room_flags, image, depth, object_ids, uv_out,
    rows, where,
):  # fmt: skip
    """Add a mesh's share to every pixel it touches; p as `_packed` gives it.

    Fragments are gathered into `rows` (a quantity each, `_CHUNK` long) and `where` (y, x, naming), so that light can
    be worked out for many at once in loops without branches.
    """
    if bounds[1] < bounds[0]:
        return
    total = samples * samples
    share = np.float32(1.0 / total)
    middle = np.float32(0.5 * (samples - 1))
    over_area = _1 / np.float32(total)
    low, high = np.int32(tag + 1), tag + 1 + (1 << _TRI_BITS)
    n = 0
    for y in range(bounds[2] // samples, bounds[3] // samples + 1):
        for x in range(bounds[0] // samples, bounds[1] // samples + 1):
            count, first, qmin, qmax = _seen_of(face, inv_z, low, samples, x, y)
            if count == 0:
                continue
            once = qmax - qmin < np.float32(0.02) * qmax
            naming = np.int32(2 * count >= total) + np.int32(2 * count > total)
            for s in range(1 if once else total):
                f, sx, sy = first, np.float32(x * samples) + middle, np.float32(y * samples) + middle
                if not once:
                    sj, si = s // samples, s % samples
                    f = face[y * samples + sj, x * samples + si, 0]
                    if f < low or f >= high:
                        continue
                    sx = np.float32(x * samples + si) + (_QUARTER if (y * samples + sj) & 1 else -_QUARTER)
                    sy = np.float32(y * samples + sj) + (-_QUARTER if (x * samples + si) & 1 else _QUARTER)
                rows[_WEIGHT + n] = share * np.float32(count) if once else share
                where[n, 0], where[n, 1], where[n, 2] = y, x, naming
                _gather(p, triangles, f - low, sx, sy, over_area, rows, n)
                n += 1
                if n == _CHUNK:
                    _light_up(
                        rows, where, n, texels, layout, material, object_id, lights, wraps, ambient, key, frame, moments,
                        centre, lens, mirror, origin, room_texels, room_layout, room_flags, image, depth, object_ids,
                        uv_out,
                    )  # fmt: skip
                    n = 0
    _light_up(
        rows, where, n, texels, layout, material, object_id, lights, wraps, ambient, key, frame, moments, centre, lens,
        mirror, origin, room_texels, room_layout, room_flags, image, depth, object_ids, uv_out,
    )  # fmt: skip


@nb.njit(**_INLINE)
def _seen_of(face, inv_z, low, samples, x, y):
    """Of a pixel: how many of its samples show a mesh, the triangle at the middle one or the first, range of 1/z."""
    top, left, limit = y * samples, x * samples, np.uint32(1 << _TRI_BITS)
    if samples == 2:  # inside a surface nearly always, and then without a loop
        f0, f1 = face[top, left, 0], face[top, left + 1, 0]
        f2, f3 = face[top + 1, left, 0], face[top + 1, left + 1, 0]
        if max(max(np.uint32(f0 - low), np.uint32(f1 - low)), max(np.uint32(f2 - low), np.uint32(f3 - low))) < limit:
            q0, q1 = inv_z[top, left, 1], inv_z[top, left + 1, 1]
            q2, q3 = inv_z[top + 1, left, 1], inv_z[top + 1, left + 1, 1]
            return 4, f2, min(min(q0, q1), min(q2, q3)), max(max(q0, q1), max(q2, q3))
    count, first, qmin, qmax = 0, np.int32(-1), np.float32(1e9), _0
    for j in range(samples):
        for i in range(samples):
            f = face[top + j, left + i, 0]
            if np.uint32(f - low) < limit:
                count += 1
                if first < 0 or j * samples + i == samples * samples // 2:
                    first = f
                q = inv_z[top + j, left + i, 1]
                qmin, qmax = min(qmin, q), max(qmax, q)
    return count, first, qmin, qmax


@nb.njit(**_INLINE)
def _gather(p, triangles, t, x, y, over_area, rows, n):
    """Interpolate a triangle's vertices at a sub-sample position into column n of `rows`."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    w0, w1, w2, q, area = _weights(p, a, b, c, x, y)
    ax, ay, az, bx, by, bz = p[a, 3], p[a, 4], p[a, 5], p[b, 3], p[b, 4], p[b, 5]
    cx, cy, cz = p[c, 3], p[c, 4], p[c, 5]
    rows[_PX + n], rows[_PY + n] = w0 * ax + w1 * bx + w2 * cx, w0 * ay + w1 * by + w2 * cy
    rows[_PZ + n], rows[_INV_Z + n] = w0 * az + w1 * bz + w2 * cz, q
    turn = -_1 if area > _0 else _1  # seen from behind
    u0, u1, u2 = w0 * turn, w1 * turn, w2 * turn
    rows[_NX + n] = u0 * p[a, 6] + u1 * p[b, 6] + u2 * p[c, 6]
    rows[_NY + n] = u0 * p[a, 7] + u1 * p[b, 7] + u2 * p[c, 7]
    rows[_NZ + n] = u0 * p[a, 8] + u1 * p[b, 8] + u2 * p[c, 8]
    rows[_U + n] = w0 * p[a, 9] + w1 * p[b, 9] + w2 * p[c, 9]
    rows[_V + n] = w0 * p[a, 10] + w1 * p[b, 10] + w2 * p[c, 10]
    rows[_AO + n] = w0 * p[a, 11] + w1 * p[b, 11] + w2 * p[c, 11]
    # twice the triangle's area in the texture, on the screen in pixels, and in square metres (squared)
    rows[_TEXELS + n] = (p[b, 9] - p[a, 9]) * (p[c, 10] - p[a, 10]) - (p[c, 9] - p[a, 9]) * (p[b, 10] - p[a, 10])
    rows[_AREA + n] = area * over_area
    bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    rows[_FRONTAL + n] = nx * nx + ny * ny + nz * nz


@nb.njit(**_KERNEL)
def _light_up(
    rows, where, n, texels, layout, material, object_id, lights, wraps, ambient, key, frame, moments, centre, lens,
    mirror, origin, room_texels, room_layout, room_flags, image, depth, object_ids, uv_out,
):  # fmt: skip
    """Colour n gathered fragments and add them to the image."""
    _texture(rows, n, texels, layout, material, lens[0])
    _surround(rows, n, material, ambient, centre)
    for k in range(lights.shape[0]):
        if k == key:
            _shadowed(rows, n, frame, moments)
        _lamp(rows, n, lights[k], wraps[k], material, k == key)
    if mirror.shape[0] > 0:
        _mirror_room(rows, where, n, mirror, room_layout, room_texels, room_flags, origin, material)
    shine, base = material[3], material[4]
    for j in range(n):
        y, x, weight, q = where[j, 0], where[j, 1], rows[_WEIGHT + j], rows[_INV_Z + j]
        image[y, x, 0] += weight * (rows[_AR + j] * (base * rows[_DR + j] + shine) + rows[_SR + j])
        image[y, x, 1] += weight * (rows[_AG + j] * (base * rows[_DG + j] + shine) + rows[_SG + j])
        image[y, x, 2] += weight * (rows[_AB + j] * (base * rows[_DB + j] + shine) + rows[_SB + j])
        # the majority of the samples names the pixel; on a tie the nearer surface does
        naming = where[j, 2]
        if naming > 0 and (q * depth[y, x] > _1 or (naming > 1 and object_ids[y, x] != object_id)):
            depth[y, x] = _1 / q
            object_ids[y, x] = object_id
            if uv_out.shape[0] > 0:
                uv_out[y, x, 0], uv_out[y, x, 1] = rows[_U + j], rows[_V + j]


@nb.njit(**_KERNEL)
def _texture(rows, n, texels, layout, material, focal):
    """Albedo and roughness of n fragments at the mip level of their footprint."""
    count = np.float32(layout[0, 1] * layout[0, 2])
    square = np.float32(0.3) * focal * focal
    for j in range(n):
        # at grazing angles the level is held back: texels a pixel as if seen at 0.3 of the frontal area
        q, texture = rows[_INV_Z + j], abs(rows[_TEXELS + j]) * count
        per_pixel = texture / (abs(rows[_AREA + j]) + np.float32(1e-9))
        per_metre = texture / ((np.sqrt(rows[_FRONTAL + j]) * square + np.float32(1e-9)) * q * q)
        rows[_TEXELS + j] = _HALF * _log2(max(min(per_pixel, per_metre), np.float32(1e-3))) - _QUARTER
    for j in range(n):
        r, g, b, rough = _sample_mesh(texels, layout, rows[_TEXELS + j], rows[_U + j], rows[_V + j])
        rows[_AR + j], rows[_AG + j], rows[_AB + j] = r, g, b
        rows[_ROUGH + j] = material[1] if rough < _0 else rough


@nb.njit(**_KERNEL)
def _surround(rows, n, material, ambient, centre):
    """View vectors, unit normals and the answer to ambient light."""
    f0, sss = material[0], material[2]
    a00, a10, a20, a30 = ambient[0, 0], ambient[1, 0], ambient[2, 0], ambient[3, 0]
    a01, a11, a21, a31 = ambient[0, 1], ambient[1, 1], ambient[2, 1], ambient[3, 1]
    a02, a12, a22, a32 = ambient[0, 2], ambient[1, 2], ambient[2, 2], ambient[3, 2]
    cx, cy, cz = centre[0], centre[1], centre[2]
    for j in range(n):
        nx, ny, nz = rows[_NX + j], rows[_NY + j], rows[_NZ + j]
        norm = _1 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
        nx, ny, nz = nx * norm, ny * norm, nz * norm
        vx, vy, vz = cx - rows[_PX + j], cy - rows[_PY + j], cz - rows[_PZ + j]
        norm = _1 / np.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * norm, vy * norm, vz * norm
        nv, ao, rough = max(nx * vx + ny * vy + nz * vz, np.float32(0.02)), rows[_AO + j], rows[_ROUGH + j]
        rows[_NX + j], rows[_NY + j], rows[_NZ + j], rows[_NV + j] = nx, ny, nz, nv
        rows[_VX + j], rows[_VY + j], rows[_VZ + j] = vx, vy, vz
        bled = min(ao + sss * np.float32(0.45) * ao * (_1 - ao), _1)
        rows[_DR + j] = max((a00 + nx * a10 + ny * a20 + nz * a30) * bled, _0)
        rows[_DG + j] = max((a01 + nx * a11 + ny * a21 + nz * a31) * ao, _0)
        rows[_DB + j] = max((a02 + nx * a12 + ny * a22 + nz * a32) * ao, _0)
        double, grazing = nv + nv, _1 - nv
        rx, ry, rz = double * nx - vx, double * ny - vy, double * nz - vz
        rim = f0 + (max(_1 - rough, f0) - f0) * grazing * grazing * grazing * grazing * grazing
        rim *= ao * ao * (_1 - np.float32(0.35) * rough)
        rows[_SR + j] = rim * max(a00 + rx * a10 + ry * a20 + rz * a30, _0)
        rows[_SG + j] = rim * max(a01 + rx * a11 + ry * a21 + rz * a31, _0)
        rows[_SB + j] = rim * max(a02 + rx * a12 + ry * a22 + rz * a32, _0)


@nb.njit(**_KERNEL)
def _shadowed(rows, n, frame, moments):
    """Share of the key light that reaches n fragments (Chebyshev's bound on the variance shadow map)."""
    size = moments.shape[0]
    half, end = np.float32(size) * _HALF, np.float32(size) - np.float32(1.001)
    xx, xy, xz, yx, yy, yz = frame[0, 0], frame[0, 1], frame[0, 2], frame[1, 0], frame[1, 1], frame[1, 2]
    zx, zy, zz, ox, oy, oz = frame[2, 0], frame[2, 1], frame[2, 2], frame[3, 0], frame[3, 1], frame[3, 2]
    for j in range(n):
        x, y, z = rows[_PX + j] - ox, rows[_PY + j] - oy, rows[_PZ + j] - oz
        sx = min(max((xx * x + xy * y + xz * z + _1) * half - _HALF, _0), end)
        sy = min(max((yx * x + yy * y + yz * z + _1) * half - _HALF, _0), end)
        sz = zx * x + zy * y + zz * z - np.float32(0.012)
        xi, yi = np.uint32(sx), np.uint32(sy)
        xj, yj = xi + np.uint32(1), yi + np.uint32(1)
        fx, fy = sx - np.float32(xi), sy - np.float32(yi)
        w00, w01, w10, w11 = (_1 - fx) * (_1 - fy), fx * (_1 - fy), (_1 - fx) * fy, fx * fy
        m1 = w00 * moments[yi, xi, 0] + w01 * moments[yi, xj, 0] + w10 * moments[yj, xi, 0] + w11 * moments[yj, xj, 0]
        m2 = w00 * moments[yi, xi, 1] + w01 * moments[yi, xj, 1] + w10 * moments[yj, xi, 1] + w11 * moments[yj, xj, 1]
        variance, behind = max(m2 - m1 * m1, np.float32(3e-4)), max(sz - m1, _0)
        bound = variance / (variance + behind * behind)
        rows[_LIT + j] = min(max((bound - _QUARTER) * np.float32(1.3333), _0), _1)


@nb.njit(**_KERNEL)
def _lamp(rows, n, light, wrap, material, is_key):
    """Add a lamp's light: diffuse with bleed, GGX highlight in two lobes.

    Source: GGX with the Schlick Fresnel term in Karis' visibility approximation (SIGGRAPH 2013 course notes);
    the wrapped terminator, widest in red, stands in for subsurface scattering (Green, GPU Gems ch. 16).
    """
    f0, sss, point, size = material[0], material[2], light[6] > _0, light[7]
    ox, oy, oz, red, green, blue = light[0], light[1], light[2], light[3], light[4], light[5]
    wr, wg, wb, er, eg, eb = wrap[0], wrap[1], wrap[2], wrap[3], wrap[4], wrap[5]
    near, shadow = np.float32(point), np.float32(is_key)
    inner = np.float32(0.2) if sss > _0 else _0
    reference, bleeding = ox * ox + oy * oy + oz * oz, sss * np.float32(0.35)
    for j in range(n):
        lx, ly, lz = ox - near * rows[_PX + j], oy - near * rows[_PY + j], oz - near * rows[_PZ + j]
        square = lx * lx + ly * ly + lz * lz
        fall = _1 + near * (min(reference / (square + np.float32(0.08)), np.float32(3.0)) - _1)
        norm = _1 / np.sqrt(square + np.float32(1e-12))
        lx, ly, lz = lx * norm, ly * norm, lz * norm
        nx, ny, nz = rows[_NX + j], rows[_NY + j], rows[_NZ + j]
        vx, vy, vz = rows[_VX + j], rows[_VY + j], rows[_VZ + j]
        nl = nx * lx + ny * ly + nz * lz
        visible = _1 - shadow * (_1 - rows[_LIT + j])
        lit, bleed = fall * visible, fall * visible * (_1 + bleeding * (_1 - visible))
        rows[_DR + j] += red * bleed * max((nl + wr) * er, _0)
        rows[_DG + j] += green * lit * max((nl + wg) * eg, _0)
        rows[_DB + j] += blue * lit * max((nl + wb) * eb, _0)
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        norm = _1 / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-12))
        nh = (nx * hx + ny * hy + nz * hz) * norm
        lh = max((lx * hx + ly * hy + lz * hz) * norm, np.float32(0.1))
        grazing = _1 - lh
        fresnel = f0 + (_1 - f0) * grazing * grazing * grazing * grazing * grazing
        wide = min(rows[_ROUGH + j] + np.float32(0.45) * size, _1)
        lobe = (_1 - inner) * _ggx(nh, lh, wide) + inner * _ggx(nh, lh, np.float32(0.6) * wide)
        lobe *= fresnel * max(nl, _0) * lit
        rows[_SR + j] += red * lobe
        rows[_SG + j] += green * lobe
        rows[_SB + j] += blue * lobe


@nb.njit(**_INLINE)
def _ggx(nh, lh, roughness):
    """GGX lobe times visibility times π, so that it adds to a diffuse term without its 1/π."""
    alpha = max(roughness * roughness, np.float32(0.02))
    square = alpha * alpha
    d = nh * nh * (square - np.float32(1.0)) + np.float32(1.0)
    return square / (d * d * max(np.float32(0.1), lh * lh) * (np.float32(4.0) * alpha + np.float32(2.0)))


@nb.njit(**_INLINE)
def _reflection(mirror, layout, texels, flags, origin, px, py, pz, roughness):
    """Room radiance in the mirror direction; the ray starts at the camera's mirror image, so t = 1 is the glass."""
    dx, dy, dz = px - origin[0], py - origin[1], pz - origin[2]
    best, found, bu, bv = np.float32(0.0), -1, np.float32(0.0), np.float32(0.0)
    for r in range(mirror.shape[0]):
        q = mirror[r, 0, 0] * dx + mirror[r, 0, 1] * dy + mirror[r, 0, 2] * dz
        if q <= best or q >= _1:
            continue
        u = mirror[r, 1, 0] * dx + mirror[r, 1, 1] * dy + mirror[r, 1, 2] * dz
        v = mirror[r, 2, 0] * dx + mirror[r, 2, 1] * dy + mirror[r, 2, 2] * dz
        if u < _0 or v < _0 or u > q or v > q:
            continue
        inv = _1 / q
        if flags[r] & 2 and _alpha(texels, layout[r, 0, 0], layout[r, 0, 1], layout[r, 0, 2], u * inv, v * inv) < _HALF:
            continue
        best, found, bu, bv = q, r, u * inv, v * inv
    if found < 0:
        return np.float32(0.0), np.float32(0.0), np.float32(0.0)
    return _sample_room(texels, layout, found, np.float32(1.5) + np.float32(6.0) * roughness, bu, bv)


@nb.njit(**_INLINE)
def _reflect(rows, j, mirror, layout, texels, flags, origin):
    r, g, b = _reflection(
        mirror, layout, texels, flags, origin, rows[_PX + j], rows[_PY + j], rows[_PZ + j], rows[_ROUGH + j]
    )
    rows[_MR + j], rows[_MG + j], rows[_MB + j] = r, g, b


@nb.njit(**_KERNEL)
def _mirror_room(rows, where, n, mirror, layout, texels, flags, origin, material):
    """Add the room's reflection. It is smooth: along a row every fourth pixel is traced, those between interpolated."""
    f0, strength = material[0], material[5]
    j = 0
    while j < n:
        if j == 0 or where[j, 0] != where[j - 1, 0] or where[j, 1] != where[j - 1, 1] + 1:
            _reflect(rows, j, mirror, layout, texels, flags, origin)
        step = 1
        if j + 4 < n and where[j + 4, 0] == where[j, 0] and where[j + 4, 1] == where[j, 1] + 4:
            step = 4
        if j + step < n:
            _reflect(rows, j + step, mirror, layout, texels, flags, origin)
        for i in range(1, step):
            part = np.float32(i) * _QUARTER
            for row in (_MR, _MG, _MB):
                rows[row + j + i] = rows[row + j] + part * (rows[row + j + 4] - rows[row + j])
        j += step
    for j in range(n):
        grazing = _1 - rows[_NV + j]
        square = grazing * grazing
        fresnel = (f0 + (_1 - f0) * square * square * grazing) * strength
        rows[_SR + j] += fresnel * rows[_MR + j]
        rows[_SG + j] += fresnel * rows[_MG + j]
        rows[_SB + j] += fresnel * rows[_MB + j]


@nb.njit(**_INLINE)
def _weights(screen, a, b, c, x, y):
    """Perspective-correct weights at a sub-sample position, 1/z there, and twice the area (negative: the front is seen).

    A pixel is shaded at its centre, which may lie just outside the triangle: weights are held near 0..1."""
    x0, y0, q0 = screen[a, 0], screen[a, 1], screen[a, 2]
    x1, y1, q1 = screen[b, 0] - x0, screen[b, 1] - y0, screen[b, 2]
    x2, y2, q2 = screen[c, 0] - x0, screen[c, 1] - y0, screen[c, 2]
    area = x1 * y2 - x2 * y1
    inv = np.float32(1.0) / area
    px, py = x - x0, y - y0
    w1 = min(max((px * y2 - x2 * py) * inv, np.float32(-0.4)), np.float32(1.4))
    w2 = min(max((x1 * py - px * y1) * inv, np.float32(-0.4)), np.float32(1.4))
    w0 = min(max(np.float32(1.0) - w1 - w2, np.float32(-0.4)), np.float32(1.4))
    total = w0 + w1 + w2
    w0, w1, w2 = w0 * q0, w1 * q1, w2 * q2
    q = w0 + w1 + w2
    inv = np.float32(1.0) / q
    return w0 * inv, w1 * inv, w2 * inv, q / total, area
