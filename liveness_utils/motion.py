"""Motion: how the phone, the head, the instrument, the face and the eyes move, and what the IMU feels.

In: a random generator and a few amplitudes. Out: smooth trajectories of time that `simulate` samples at
frame times, and IMU records computed from the very same splines. No pixel and no label passes through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline
from scipy.signal import butter, lfilter, lfilter_zi
from scipy.spatial.transform import Rotation

from liveness_utils.clips import CLIP_SECONDS, EXPRESSION_NAMES, Imu
from liveness_utils.errors import MotionError

if TYPE_CHECKING:
    from liveness_utils.devices import ImuProfile

MOTIONS = ("stand", "hold_still", "natural", "sweep", "walking")
HEAD_KINDS = ("calm", "nod", "turn")
HAND_KINDS = ("fixed", "held", "moved")
FORGERIES = ("other_motion", "rest", "forged")
GRAVITY = np.array([0.0, -9.81, 0.0])
R_DEVICE_CAMERA = {"front": np.diag([-1.0, -1.0, 1.0]), "rear": np.diag([1.0, -1.0, -1.0])}

_KNOT_RATE = 100.0  # quintic knots: tremor up to 25 Hz keeps its acceleration
NECK = np.array([0.0, -0.12, -0.09])  # turning point of the head seen from between the eyes, m
_MAX_OFF_AXIS = math.radians(7.0)  # the face stays in the middle of a phone's 55 to 70° of view


# ------------------------------------------------------------------------------------- trajectories
@dataclass(frozen=True)
class Trajectory:
    """A rigid body's path, four times differentiable.

    Rotation is ``mean @ exp(rotation(t))``: a rotation-vector spline about a mean attitude,
    so that the angular rate follows analytically.

    Attributes:
        position: spline (N,) s → (N, 3) m, world.
        rotation: spline (N,) s → (N, 3) rad, small turns about `mean`.
        mean: (3, 3) mean attitude R_world_body.
        start: first valid time, s.
        stop: last valid time, s.
        body: displacement of the person who carries it (walking), which others share; or None.
        kind: what it was made as.
    """

    position: BSpline
    rotation: BSpline
    mean: np.ndarray
    start: float
    stop: float
    body: BSpline | None = None
    kind: str = ""

    def pose(self, t: np.ndarray) -> np.ndarray:
        """Poses T_world_body, (N, 4, 4) float64, at times (N,)."""
        t = self._inside(t)
        T = np.tile(np.eye(4), (len(t), 1, 1))
        T[:, :3, :3] = self.mean @ Rotation.from_rotvec(self.rotation(t)).as_matrix()
        T[:, :3, 3] = self.position(t)
        return T

    def angular_rate(self, t: np.ndarray) -> np.ndarray:
        """Angular rate in body axes, (N, 3) rad/s."""
        t = self._inside(t)
        return _body_rate(self.rotation(t), self.rotation(t, nu=1))

    def velocity(self, t: np.ndarray) -> np.ndarray:
        """Velocity in world axes, (N, 3) m/s."""
        return self.position(self._inside(t), nu=1)

    def acceleration(self, t: np.ndarray) -> np.ndarray:
        """Acceleration in world axes, (N, 3) m/s², gravity not included."""
        return self.position(self._inside(t), nu=2)

    def _inside(self, t: np.ndarray) -> np.ndarray:
        t = np.atleast_1d(np.asarray(t, np.float64))
        if len(t) and (t.min() < self.start - 1e-9 or t.max() > self.stop + 1e-9):
            raise MotionError(
                f"times {t.min():.2f}…{t.max():.2f} s leave the trajectory's "
                f"{self.start:.2f}…{self.stop:.2f} s; build it longer or with more margin."
            )
        return t


def _body_rate(phi: np.ndarray, phi_dot: np.ndarray) -> np.ndarray:
    """Right Jacobian of SO(3) times the derivative of the rotation vector."""
    angle = np.maximum(np.linalg.norm(phi, axis=1, keepdims=True), 1e-6)
    first = np.cross(phi, phi_dot)
    a = (1.0 - np.cos(angle)) / angle**2
    b = (angle - np.sin(angle)) / angle**3
    return phi_dot - a * first + b * np.cross(phi, first)


def make_trajectory(
    t: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    *,
    body: np.ndarray | None = None,
    kind: str = "",
) -> Trajectory:
    """Quintic splines through sampled poses.

    Args:
        t: (K,) knot times, K ≥ 6.
        position: (K, 3) m.
        rotation: (K, 3, 3) R_world_body.
        body: (K, 3) shared displacement, m.
        kind: name to keep.
    """
    mean = rotation[len(t) // 2]
    phi = Rotation.from_matrix(mean.T @ rotation).as_rotvec()
    return Trajectory(
        position=make_interp_spline(t, position, k=5),
        rotation=make_interp_spline(t, phi, k=5),
        mean=mean,
        start=float(t[0]),
        stop=float(t[-1]),
        body=None if body is None else make_interp_spline(t, body, k=5),
        kind=kind,
    )


def static_trajectory(T_world_body: np.ndarray | None = None, *, start: float = -1.0, stop: float = 4.0) -> Trajectory:
    """A body that does not move.

    Example:
        >>> static_trajectory().angular_rate([0.0]).tolist()
        [[0.0, 0.0, 0.0]]
    """
    T = np.eye(4) if T_world_body is None else T_world_body
    t = np.linspace(start, stop, 6)
    still = np.tile(T[:3, :3], (6, 1, 1))
    return make_trajectory(t, np.tile(T[:3, 3], (6, 1)), still, kind="static")


def moved_trajectory(trajectory: Trajectory, arm: np.ndarray) -> Trajectory:
    """The path of another point of the same rigid body, `arm` (3,) m away in body axes."""
    count = max(6, round((trajectory.stop - trajectory.start) * _KNOT_RATE) + 1)
    t = np.linspace(trajectory.start, trajectory.stop, count)
    T = trajectory.pose(t)
    return replace(trajectory, position=make_interp_spline(t, T[:, :3, 3] + T[:, :3, :3] @ arm, k=5))


# --------------------------------------------------------------------------------------- ingredients
def _knots(duration: float, margin: float) -> np.ndarray:
    count = round((duration + 2 * margin) * _KNOT_RATE) + 1
    return -margin + np.arange(count) / _KNOT_RATE


def _noise(
    rng: np.random.Generator, t: np.ndarray, rms: float, low: float, high: float,
    slope: float = 0.0, axes: int = 3,
) -> np.ndarray:  # fmt: skip
    """(N, axes) sum of sinusoids, frequencies low…high Hz, amplitude ∝ f^slope, given expected rms."""
    lines = 12
    edges = np.linspace(np.log(low), np.log(high), lines + 1)
    f = np.exp(rng.uniform(edges[:-1], edges[1:], (axes, lines)))
    amplitude = f**slope
    amplitude *= rms / np.sqrt(0.5 * np.sum(amplitude**2, axis=1, keepdims=True))
    phase = rng.uniform(0.0, 2 * np.pi, (axes, lines))
    return np.einsum("al,alt->ta", amplitude, np.sin(2 * np.pi * f[..., None] * t + phase[..., None]))


def min_jerk(u: np.ndarray) -> np.ndarray:
    """Position of the smoothest reach from 0 to 1 over u in 0…1, held outside.

    Source:
        Flash and Hogan, J. Neurosci. 5(7):1688–1703, 1985.

    Example:
        >>> min_jerk(np.array([-1.0, 0.5, 2.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10.0 + u * (6.0 * u - 15.0))


def _reach(t: np.ndarray, start: float, length: float) -> np.ndarray:
    return min_jerk((t - start) / length)


def _bump(t: np.ndarray, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
    return _reach(t, start, rise) - _reach(t, start + rise + hold, fall)


@dataclass(frozen=True)
class HandMotion:
    """Typical (median) involuntary motion of something held.

    Drift is 1/f between 0.1 and 3 Hz. Tremor lies at 6–12 Hz: postural hand tremor of 97
    healthy people was 0.0015 to 0.035 g peak, mode 0.01 g (0.07 m/s² rms).

    Attributes:
        drift_m: translation, rms a axis.
        drift_rad: rotation, rms a axis.
        tremor_mps2: acceleration of the tremor, rms a axis.
        tremor_radps: angular rate of the tremor, rms a axis.

    Source:
        A normative study of postural tremor of the hand, Arch. Neurol. 39(6):358–362, 1982,
        doi 10.1001/archneur.1982.00510180036009;
        Lakie et al., J. Physiol. 593(19):4411–4422, 2015 (peak at 6–12 Hz).
    """

    drift_m: float
    drift_rad: float
    tremor_mps2: float
    tremor_radps: float


_HANDS = {
    "stand": HandMotion(0.0, 0.0, 0.010, 0.0006),
    "hold_still": HandMotion(0.0015, 0.007, 0.06, 0.012),
    "natural": HandMotion(0.006, 0.020, 0.09, 0.022),
    "sweep": HandMotion(0.003, 0.014, 0.10, 0.025),
    "walking": HandMotion(0.007, 0.022, 0.12, 0.030),
}


def _shake(rng: np.random.Generator, t: np.ndarray, hand: HandMotion) -> tuple[np.ndarray, np.ndarray]:
    """Involuntary translation (N, 3) m and rotation (N, 3) rad of a held thing."""
    level = float(np.exp(rng.normal(0.0, 0.35)))
    centre = rng.uniform(7.5, 11.0)
    w = 2 * np.pi * centre
    low, high = centre - 1.5, centre + 1.5
    move = _noise(rng, t, level * hand.drift_m, 0.1, 3.0, -1.0)
    turn = _noise(rng, t, level * hand.drift_rad, 0.1, 3.0, -1.0)
    move += _noise(rng, t, level * hand.tremor_mps2 / w**2, low, high)
    turn += _noise(rng, t, level * hand.tremor_radps / w, low, high)
    return move, turn


def _bounce(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Displacement (N, 3) m of a body that walks slowly, forward progress left out.

    One vertical and one fore-aft cycle a step, one lateral cycle a stride.

    Source:
        Hirasaki et al., Exp. Brain Res. 127:117–130, 1999 (head and trunk in walking).
    """
    step = rng.uniform(1.6, 2.0)
    phase = 2 * np.pi * step * t + rng.uniform(0.0, 2 * np.pi)
    vertical = rng.uniform(0.008, 0.018) * (np.cos(phase) + 0.2 * np.cos(2 * phase + 0.7))
    lateral = rng.uniform(0.008, 0.018) * np.sin(0.5 * phase)
    forward = rng.uniform(0.003, 0.008) * np.sin(phase + 0.5)
    return np.stack([lateral, vertical, forward], axis=1)


# -------------------------------------------------------------------------------------------- camera
def direction(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) from the face towards azimuth (to +x) and elevation (to +y), rad."""
    c = np.cos(elevation)
    return np.stack([c * np.sin(azimuth), np.sin(elevation), c * np.cos(azimuth)], axis=-1)


def _looking_back(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """(N, 3, 3) R_world_camera of upright cameras that look along −direction."""
    forward = -direction(azimuth, elevation)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=-1)


def camera_trajectory(
    kind: str,
    rng: np.random.Generator,
    distance: float = 0.40,
    duration: float = CLIP_SECONDS,
    margin: float = 0.5,
    *,
    sweep_deg: float | None = None,
    sweep_axis: str | None = None,
) -> Trajectory:
    """The phone's camera in front of a face at the world's origin.

    The phone is held 5 to 25° below eye level and tilted back to look up at the face, with a
    little roll and a framing error, and the face stays within 7° or so of the optical axis.

    ``stand``: on a stand, with the vibration of a table. ``hold_still``: held on purpose.
    ``natural``: held without care. ``sweep``: a voluntary orbit of 19 to 30° about the face,
    sideways, vertical or diagonal, one way or there and back. ``walking``: carried by
    someone who walks; `Trajectory.body` is the bounce that head and hands share.

    Args:
        kind: one of `MOTIONS`.
        rng: source of everything random.
        distance: camera to face, m.
        duration: length of the video, s.
        margin: valid time before and after, s.
        sweep_deg: orbit angle; None draws it. Only for ``sweep``.
        sweep_axis: ``sideways``, ``vertical`` or ``diagonal``; None draws it.

    Returns:
        Trajectory of T_world_camera (OpenCV axes).

    Raises:
        MotionError: if the kind is unknown or the distance is not within 0.1 to 3 m.
    """
    if kind not in MOTIONS:
        raise MotionError(f"motion kind {kind!r} is unknown; choose one of {MOTIONS}.")
    if not 0.1 <= distance <= 3.0:
        raise MotionError(f"distance {distance} m; give 0.1 to 3 m.")
    t = _knots(duration, margin)
    azimuth, elevation = math.radians(rng.normal(0.0, 3.0)), -math.radians(rng.uniform(5.0, 25.0))
    orbit = np.zeros((len(t), 2))
    if kind == "sweep":
        orbit = _sweep(rng, t, duration, sweep_deg, sweep_axis)
        orbit[:, 0] /= math.cos(elevation)
    body = _bounce(rng, t) if kind == "walking" else None
    angles = np.array([azimuth, elevation]) + orbit
    return _assemble_camera(kind, rng, t, angles, orbit, distance, body)


def _sweep(
    rng: np.random.Generator, t: np.ndarray, duration: float, degrees: float | None,
    axis: str | None,
) -> np.ndarray:  # fmt: skip
    """Voluntary orbit (N, 2) rad in azimuth and elevation."""
    size = math.radians(rng.uniform(19.0, 30.0)) if degrees is None else math.radians(degrees)
    axis = rng.choice(["sideways", "vertical", "diagonal"], p=[0.5, 0.25, 0.25]) if axis is None else axis
    tilt = {"sideways": 0.0, "vertical": 90.0, "diagonal": 45.0 * rng.choice([-1, 1])}.get(axis)
    if tilt is None:
        raise MotionError(f"sweep axis {axis!r} is unknown; say sideways, vertical or diagonal.")
    sign = rng.choice([-1.0, 1.0])
    start, stop = duration * rng.uniform(0.04, 0.12), duration * rng.uniform(0.88, 0.96)
    if rng.random() < 0.5:
        path = _reach(t, start, stop - start) - 0.5
    else:
        turn = start + (stop - start) * rng.uniform(0.45, 0.55)
        path = _reach(t, start, turn - start) - _reach(t, turn, stop - turn) - 0.5
    unit = np.array([math.cos(math.radians(tilt)), math.sin(math.radians(tilt))])
    return sign * size * path[:, None] * unit


def _assemble_camera(
    kind: str, rng: np.random.Generator, t: np.ndarray, angles: np.ndarray, orbit: np.ndarray,
    distance: float, body: np.ndarray | None,
) -> Trajectory:  # fmt: skip
    move, turn = _shake(rng, t, _HANDS[kind])
    reach = np.ptp(orbit, axis=0)
    swing = np.linalg.norm(orbit, axis=1)
    # squared, since the norm itself has a kink where the orbit passes its middle
    radius = distance * (1.0 + rng.uniform(-0.15, 0.15) * swing**2 / max(swing.max(), 1e-9))
    position = radius[:, None] * direction(angles[:, 0], angles[:, 1]) + move
    # people turn the phone somewhat less, or more, than the orbit asks for
    lag = np.clip(rng.normal(0.06, 0.08), -0.1, min(0.2, 0.6 * _MAX_OFF_AXIS / max(reach.max(), 1e-9)))
    aim = angles - lag * orbit
    if body is not None:
        position += rng.uniform(0.7, 1.0) * body
        turn[:, 0] += rng.normal(0.0, 0.35) * body[:, 1]
    framing = np.append(rng.normal(0.0, math.radians(1.2), 2), rng.normal(0.0, math.radians(2.5)))
    turn = _centred(turn) + framing
    R = _looking_back(aim[:, 0], aim[:, 1]) @ Rotation.from_rotvec(turn).as_matrix()
    return make_trajectory(t, position, R, body=body, kind=kind)


def _centred(turn: np.ndarray) -> np.ndarray:
    """People re-frame: take the mean out and bound what is left."""
    turn = turn - turn.mean(axis=0)
    worst = np.abs(turn[:, :2]).max()
    return turn * min(1.0, 0.6 * _MAX_OFF_AXIS / max(worst, 1e-9))


# ---------------------------------------------------------------------------------- head and hands
def head_trajectory(
    rng: np.random.Generator,
    kind: str | None = None,
    *,
    follow: Trajectory | None = None,
    gain: float = 0.0,
    duration: float = CLIP_SECONDS,
    margin: float = 0.5,
    latency: float | None = None,
) -> Trajectory:
    """The head: sway and small turns, nods or turns on top, and a part that follows the phone.

    The head turns about the neck, so the eyes move too. Where `follow` walks, the head
    bounces along.

    Args:
        rng: source of everything random.
        kind: ``calm``, ``nod`` (5–15°) or ``turn`` (10–25° to a side); None draws 50/20/30 %.
        follow: the phone's camera; its mean direction sets where the head faces at first.
        gain: 0 keeps the head's heading, 1 turns it fully with the phone's orbit.
        duration: length of the video, s.
        margin: valid time before and after, s.
        latency: delay of following, s; None draws 0.1 to 0.25 s.

    Returns:
        Trajectory of T_world_head.

    Raises:
        MotionError: if the kind is unknown or the gain is not within 0 to 1.
    """
    kind = str(rng.choice(HEAD_KINDS, p=[0.5, 0.2, 0.3])) if kind is None else kind
    if kind not in HEAD_KINDS or not 0.0 <= gain <= 1.0:
        raise MotionError(f"head {kind!r} with gain {gain}; choose {HEAD_KINDS} and 0 to 1.")
    t = _knots(duration, margin)
    latency = rng.uniform(0.10, 0.25) if latency is None else latency
    facing = rng.uniform(0.5, 1.0)
    angles = _own_head_angles(rng, t, kind, duration)
    if follow is not None:
        angles[:, :2] += _following(follow, t - latency, gain, facing)
    sway = _noise(rng, t, 0.003 * np.exp(rng.normal(0.0, 0.4)), 0.1, 2.0, -1.0)
    body = None if follow is None or follow.body is None else follow.body(t)
    sway += 0.0 if body is None else body
    R = _head_rotation(angles)
    return make_trajectory(t, sway + NECK - R @ NECK, R, body=body, kind=kind)


def _head_rotation(angles: np.ndarray) -> np.ndarray:
    """(N, 3, 3) from yaw (to +x), pitch (up) and roll, rad."""
    return Rotation.from_euler("YXZ", angles * [1.0, -1.0, 1.0]).as_matrix()


def _own_head_angles(rng: np.random.Generator, t: np.ndarray, kind: str, duration: float) -> np.ndarray:
    angles = _noise(rng, t, math.radians(0.9) * np.exp(rng.normal(0.0, 0.4)), 0.1, 2.0, -1.0)
    angles += np.radians(rng.normal(0.0, [3.0, 3.0, 3.0]))
    if kind == "calm":
        return angles
    size = rng.uniform(10.0, 25.0) if kind == "turn" else rng.uniform(5.0, 15.0)
    rise = 0.35 + 0.018 * size * rng.uniform(0.8, 1.3)
    start = rng.uniform(0.05, max(0.06, duration - 1.6 * rise))
    path = _bump(t, start, rise, rng.uniform(0.05, 0.4), rise * rng.uniform(0.9, 1.2))
    angles[:, 0 if kind == "turn" else 1] += rng.choice([-1, 1]) * math.radians(size) * path
    return angles


def _following(camera: Trajectory, t: np.ndarray, gain: float, facing: float) -> np.ndarray:
    """Head yaw and pitch (N, 2) rad towards the phone: part of its mean place, `gain` of its orbit."""
    inside = np.clip(t, camera.start, camera.stop)
    p = camera.position(inside) - (0.0 if camera.body is None else camera.body(inside))
    towards = np.stack([np.arctan2(p[:, 0], p[:, 2]), np.arctan2(p[:, 1], np.hypot(p[:, 0], p[:, 2]))], 1)
    mean = towards.mean(axis=0)
    return facing * mean + gain * (towards - mean)


def hand_trajectory(
    rng: np.random.Generator,
    kind: str | None = None,
    *,
    follow: Trajectory | None = None,
    duration: float = CLIP_SECONDS,
    margin: float = 0.5,
) -> Trajectory:
    """An instrument (sheet, screen, mask) about its nominal place at the world's origin.

    Args:
        rng: source of everything random.
        kind: ``fixed`` (stands or hangs), ``held`` (tremor and drift) or ``moved`` (turned and
            shifted on purpose, 5–20° and 1–4 cm); None draws 20/45/35 %.
        follow: the phone's camera; the instrument's mean attitude faces it roughly, and a
            walking attacker's bounce is shared.
        duration: length of the video, s.
        margin: valid time before and after, s.

    Returns:
        Trajectory of T_world_instrument, axes as the head frame (z out of the picture).

    Raises:
        MotionError: if the kind is unknown.
    """
    kind = str(rng.choice(HAND_KINDS, p=[0.2, 0.45, 0.35])) if kind is None else kind
    if kind not in HAND_KINDS:
        raise MotionError(f"instrument motion {kind!r} is unknown; choose one of {HAND_KINDS}.")
    t = _knots(duration, margin)
    move, turn = _shake(rng, t, _HANDS["stand" if kind == "fixed" else "natural"])
    angles = turn + np.radians(rng.normal(0.0, [5.0, 5.0, 2.5]))
    if follow is not None:
        angles[:, :2] += _following(follow, t, 0.0, rng.uniform(0.6, 1.0))
    if kind == "moved":
        axis, path = rng.integers(0, 3), _there_and_back(rng, t, duration)
        angles[:, axis] += math.radians(rng.uniform(5.0, 20.0)) * path
        move[:, rng.integers(0, 3)] += rng.uniform(0.01, 0.04) * _there_and_back(rng, t, duration)
    body = None if follow is None or follow.body is None else follow.body(t)
    if body is not None and kind != "fixed":
        move = move + rng.uniform(0.7, 1.0) * body
    return make_trajectory(t, move, _head_rotation(angles), body=body, kind=kind)


def _there_and_back(rng: np.random.Generator, t: np.ndarray, duration: float) -> np.ndarray:
    start, middle = duration * rng.uniform(0.0, 0.2), duration * rng.uniform(0.4, 0.55)
    stop = duration * rng.uniform(0.8, 1.0)
    path = _reach(t, start, middle - start) - _reach(t, middle, stop - middle)
    return rng.choice([-1.0, 1.0]) * path


def viewing_direction_change(T_world_camera: np.ndarray, T_world_head: np.ndarray, *, frame: str = "world") -> float:
    """Largest angle between any two directions from the face to the camera, in degrees.

    Args:
        T_world_camera: (N, 4, 4).
        T_world_head: (N, 4, 4); for an instrument, the face shown on it.
        frame: ``world`` measures the phone's orbit whatever the head does; ``head`` what the
            face shows of it, which a head that follows cancels.

    Raises:
        MotionError: if the frame is unknown.

    Example:
        >>> poses = np.tile(np.eye(4), (2, 1, 1)); head = poses.copy()
        >>> poses[:, :3, 3] = [[0, 0, 1], [1, 0, 0]]
        >>> round(viewing_direction_change(poses, head), 3)
        90.0
    """
    if frame not in ("world", "head"):
        raise MotionError(f"frame {frame!r} is unknown; say world or head.")
    view = T_world_camera[:, :3, 3] - T_world_head[:, :3, 3]
    if frame == "head":
        view = np.einsum("nji,nj->ni", T_world_head[:, :3, :3], view)
    view = view / np.linalg.norm(view, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip((view @ view.T).min(), -1.0, 1.0))))


# -------------------------------------------------------------------------------- face and eyes
class Expressions(NamedTuple):
    """Expression weights over time, and the blinks among them.

    Attributes:
        weights: (N, 52) float32 in 0…1, order `EXPRESSION_NAMES`.
        blinks: (K, 3) float64 s: lid starts down, is lowest, is up again. Partial ones included.
    """

    weights: np.ndarray
    blinks: np.ndarray


def expression_timeline(
    rng: np.random.Generator,
    t: np.ndarray,
    *,
    speaking: bool | None = None,
    blink_rate: float | None = None,
) -> Expressions:
    """What a face does while it looks at a phone: blinks, and in part of the clips speech,
    a smile or raised brows. Gaze is apart, in `gaze_timeline`.

    Args:
        rng: source of everything random; drawn before `t` is looked at except for its range.
        t: (N,) times, s.
        speaking: None draws 35 %.
        blink_rate: blinks a minute; None draws it a person: median 15 silent, 24 speaking.

    Returns:
        Expressions.

    Source:
        Doughty, Optom. Vis. Sci. 78(10):712–725, 2001: 8 to 21 blinks a minute in primary gaze,
        10.5 to 32.5 in conversation. Speech rhythm: Chandrasekaran et al., PLoS Comput. Biol.
        5(7):e1000436, 2009 (mouth opens at 2–7 Hz).
    """
    t = np.asarray(t, np.float64)
    speaking = bool(rng.random() < 0.35) if speaking is None else speaking
    if blink_rate is None:
        blink_rate = float((24.0 if speaking else 15.0) * np.exp(rng.normal(0.0, 0.35)))
    weights = {name: np.zeros(len(t)) for name in EXPRESSION_NAMES}
    span = (float(t.min()), float(t.max())) if len(t) else (0.0, 0.0)
    _add_resting_tone(rng, t, weights)
    for chance, add in ((0.35, _add_smile), (0.30, _add_brows)):
        if rng.random() < chance:
            add(rng, t, span, weights)
    if speaking:
        _add_speech(rng, t, span, weights)
    blinks = _add_blinks(rng, t, span, weights, blink_rate)
    stacked = np.stack([weights[name] for name in EXPRESSION_NAMES], axis=1)
    return Expressions(np.clip(stacked, 0.0, 1.0).astype(np.float32), blinks)


def lid_profile(t: np.ndarray, start: float, closing: float, closed: float, opening: float) -> np.ndarray:
    """Lid closure 0…1 of one blink: a fast way down, a short rest, a slow way up with a tail.

    Source:
        VanderWerf et al., J. Neurophysiol. 89(5):2784–2796, 2003 (lid kinematics). That spontaneous
        blinks close in about 66 to 100 ms and rest for about 13 ms was not confirmed against it.

    Example:
        >>> lid_profile(np.array([0.0, 0.08, 0.3]), 0.0, 0.08, 0.0, 0.2).round(2).tolist()
        [0.0, 1.0, 0.0]
    """
    down = _reach(t, start, closing)
    u = np.clip((t - start - closing - closed) / opening, 0.0, 1.0) ** 0.7
    return down - down * u * u * (3.0 - 2.0 * u)


def _add_blinks(
    rng: np.random.Generator, t: np.ndarray, span: tuple[float, float],
    weights: dict[str, np.ndarray], rate: float,
) -> np.ndarray:  # fmt: skip
    blinks = []
    interval = 60.0 / rate
    # intervals are right-skewed; a random phase in the first one makes the start unremarkable
    next_start = span[0] - rng.uniform(0.0, 1.0) * interval
    while next_start < span[1]:
        lengths = rng.uniform(0.07, 0.10), max(0.0, rng.normal(0.015, 0.008)), rng.uniform(0.14, 0.22)
        depth = rng.uniform(0.35, 0.85) if rng.random() < 0.25 else rng.uniform(0.92, 1.0)
        end = next_start + sum(lengths)
        if end > span[0]:
            _close_lids(rng, t, weights, next_start, lengths, depth)
            blinks.append((next_start, next_start + lengths[0] + 0.5 * lengths[1], end))
        next_start = end + max(0.25, interval * np.exp(rng.normal(-0.25, 0.7)) - sum(lengths))
    return np.array(blinks, np.float64).reshape(-1, 3)


def _close_lids(
    rng: np.random.Generator, t: np.ndarray, weights: dict[str, np.ndarray], start: float,
    lengths: tuple[float, float, float], depth: float,
) -> None:  # fmt: skip
    for side in ("Left", "Right"):
        lid = depth * rng.uniform(0.96, 1.0) * lid_profile(t, start + rng.normal(0, 0.002), *lengths)
        name = f"eyeBlink{side}"
        weights[name] = np.maximum(weights[name], lid)
        weights[f"browDown{side}"] = weights[f"browDown{side}"] + 0.08 * lid


def _add_resting_tone(rng: np.random.Generator, t: np.ndarray, weights: dict[str, np.ndarray]) -> None:
    """A relaxed face is not the zero of the model: a constant trace, and slow change."""
    pairs = ("eyeBlink", "eyeSquint", "mouthSmile", "mouthPress", "mouthFrown", "browDown")
    for name in pairs:
        level = rng.exponential(0.035) + _noise(rng, t, 0.008, 0.1, 1.0, -1.0, axes=1)[:, 0]
        for side in ("Left", "Right"):
            weights[name + side] += np.maximum(level + rng.normal(0.0, 0.008), 0.0)


def _add_smile(
    rng: np.random.Generator, t: np.ndarray, span: tuple[float, float],
    weights: dict[str, np.ndarray],
) -> None:  # fmt: skip
    size = rng.uniform(0.2, 0.8)
    start = rng.uniform(span[0] - 0.5, span[1] - 0.4)
    path = size * _bump(t, start, rng.uniform(0.3, 0.7), rng.uniform(0.5, 2.0), rng.uniform(0.5, 1.0))
    for side in ("Left", "Right"):
        share = rng.uniform(0.85, 1.0)
        weights[f"mouthSmile{side}"] += share * path
        weights[f"cheekSquint{side}"] += 0.5 * share * path
        weights[f"eyeSquint{side}"] += 0.3 * share * path


def _add_brows(
    rng: np.random.Generator, t: np.ndarray, span: tuple[float, float],
    weights: dict[str, np.ndarray],
) -> None:  # fmt: skip
    size = rng.uniform(0.25, 0.8)
    start = rng.uniform(span[0], max(span[0] + 0.01, span[1] - 0.5))
    path = size * _bump(t, start, rng.uniform(0.15, 0.3), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.4))
    weights["browInnerUp"] += path
    for side in ("Left", "Right"):
        weights[f"browOuterUp{side}"] += rng.uniform(0.7, 1.0) * path
        weights[f"eyeWide{side}"] += 0.25 * path


_VOWELS = (
    {"jawOpen": 0.45, "mouthLowerDown": 0.25, "mouthUpperUp": 0.12},  # a
    {"jawOpen": 0.22, "mouthStretch": 0.35, "mouthLowerDown": 0.15},  # e, i
    {"jawOpen": 0.25, "mouthFunnel": 0.50},  # o
    {"jawOpen": 0.12, "mouthPucker": 0.55, "mouthFunnel": 0.20},  # u
)
_PAIRED = ("mouthLowerDown", "mouthUpperUp", "mouthStretch", "mouthPress")


def _add_speech(
    rng: np.random.Generator, t: np.ndarray, span: tuple[float, float],
    weights: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """Syllables at 3 to 6 Hz in phrases: a vowel's mouth shape each, now and then closed lips."""
    rate, loud = rng.uniform(3.0, 6.0), rng.uniform(0.6, 1.3)
    at = span[0] - rng.uniform(0.0, 0.5)
    while at < span[1]:
        length = np.exp(rng.normal(0.0, 0.2)) / rate
        shape = np.exp(-0.5 * ((t - at) / (0.42 * length)) ** 2)
        vowel = _VOWELS[rng.integers(len(_VOWELS))]
        for name, size in vowel.items():
            _raise(weights, name, loud * size * rng.uniform(0.7, 1.2) * shape)
        if rng.random() < 0.25:
            lips = np.exp(-0.5 * ((t - at - 0.5 * length) / 0.03) ** 2)
            _raise(weights, "mouthPress", rng.uniform(0.2, 0.5) * lips)
        at += length + (rng.uniform(0.3, 0.8) if rng.random() < 0.10 else 0.0)


def _raise(weights: dict[str, np.ndarray], name: str, value: np.ndarray) -> None:
    names = (f"{name}Left", f"{name}Right") if name in _PAIRED else (name,)
    for full in names:
        weights[full] = weights[full] + value


def gaze_timeline(rng: np.random.Generator, t: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
    """Gaze in the head frame: fixations, saccades between them, drift and microsaccades.

    Args:
        rng: source of everything random.
        t: (N,) times, s, increasing.
        target: (N, 2) rad, where the phone is in the head frame (`gaze_target`); None: ahead.

    Returns:
        (N, 2) float32 rad: yaw to +x (image right), pitch up.

    Source:
        Saccade duration 2.2 ms/° + 21 ms: Carpenter, Movements of the Eyes, 2nd ed., 1988.
        Microsaccades once or twice a second, under 1°: Martinez-Conde et al., Nat. Rev. Neurosci.
        5:229–240, 2004.
    """
    t = np.asarray(t, np.float64)
    gaze = np.zeros((len(t), 2)) if target is None else np.array(target, np.float64)
    gaze += _noise(rng, t, math.radians(0.12), 0.2, 3.0, -1.0, axes=2)
    at, place = (t.min() if len(t) else 0.0), rng.normal(0.0, math.radians(1.5), 2)
    gaze += place
    while len(t) and (at := at + rng.exponential(0.6) + 0.12) < t.max():
        micro = rng.random() < 0.6
        goal = place * 0.0 if micro else rng.normal(0.0, math.radians(3.0), 2)
        step = rng.normal(0.0, math.radians(0.35), 2) if micro else goal - place
        length = 0.021 + 0.0022 * math.degrees(float(np.hypot(*step)))
        gaze += _reach(t, at, length)[:, None] * step
        place = place + step
    return gaze.astype(np.float32)


def gaze_target(T_world_head: np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
    """Yaw and pitch (N, 2) rad of the camera seen from between the eyes, in the head frame.

    Eyes that rest on the phone counter-rotate against the head (vestibulo-ocular reflex).
    """
    towards = np.einsum("nji,nj->ni", T_world_head[:, :3, :3], T_world_camera[:, :3, 3] - T_world_head[:, :3, 3])
    yaw = np.arctan2(towards[:, 0], towards[:, 2])
    pitch = np.arctan2(towards[:, 1], np.hypot(towards[:, 0], towards[:, 2]))
    return np.stack([yaw, pitch], axis=1)


# ----------------------------------------------------------------------------------------------- IMU
@dataclass(frozen=True)
class ImuErrors:
    """Errors that one unit keeps for a record: measured = matrix @ true + bias.

    Attributes:
        accel_bias: (3,) m/s².
        gyro_bias: (3,) rad/s.
        accel_matrix: (3, 3) scale factor and misalignment.
        gyro_matrix: (3, 3).
    """

    accel_bias: np.ndarray
    gyro_bias: np.ndarray
    accel_matrix: np.ndarray
    gyro_matrix: np.ndarray


def draw_imu_errors(profile: ImuProfile, rng: np.random.Generator) -> ImuErrors:
    """Draw a unit's turn-on bias, scale factor and misalignment."""

    def matrix(scale: float) -> np.ndarray:
        cross = rng.normal(0.0, profile.misalignment, (3, 3)) * (1.0 - np.eye(3))
        return np.eye(3) + np.diag(rng.normal(0.0, scale, 3)) + cross

    return ImuErrors(
        accel_bias=rng.normal(0.0, profile.accel_bias, 3),
        gyro_bias=rng.normal(0.0, profile.gyro_bias, 3),
        accel_matrix=matrix(profile.accel_scale),
        gyro_matrix=matrix(profile.gyro_scale),
    )


def imu_times(
    profile: ImuProfile, rng: np.random.Generator, duration: float = CLIP_SECONDS,
    lead: float = 0.3,
) -> np.ndarray:  # fmt: skip
    """True sampling instants (M,) s in the video's clock, from `lead` before to `lead` after it.

    The rate is off by the part's tolerance, the first instant has a random phase.
    """
    rate = profile.rate * (1.0 + np.clip(rng.normal(0.0, profile.rate_tolerance), -0.05, 0.05))
    count = int((duration + 2 * lead) * rate)
    return -lead + (np.arange(count) + rng.uniform(0.0, 1.0)) / rate


def specific_force_and_rate(
    trajectory: Trajectory, t: np.ndarray, facing: str = "front"
) -> tuple[np.ndarray, np.ndarray]:
    """What a perfect IMU at the camera's place measures, in W3C device axes.

    f = Rᵀ (a − g) with g = (0, −9.81, 0), and the body's angular rate.

    Args:
        trajectory: of T_world_camera.
        t: (M,) times, s.
        facing: ``front`` or ``rear``.

    Returns:
        specific force (M, 3) m/s² and angular rate (M, 3) rad/s.

    Raises:
        MotionError: if facing is unknown.

    Example:
        >>> T = np.diag([1.0, -1.0, -1.0, 1.0])
        >>> f, w = specific_force_and_rate(static_trajectory(T), [0.0], "rear")
        >>> (f + 0.0).round(2).tolist()
        [[0.0, 9.81, 0.0]]
    """
    if facing not in R_DEVICE_CAMERA:
        raise MotionError(f"facing {facing!r} is unknown; say front or rear.")
    turn = R_DEVICE_CAMERA[facing]
    R = trajectory.pose(t)[:, :3, :3]
    force = np.einsum("nji,nj->ni", R, trajectory.acceleration(t) - GRAVITY)
    return force @ turn.T, trajectory.angular_rate(t) @ turn.T


def imu_from_trajectory(
    trajectory: Trajectory,
    t: np.ndarray,
    profile: ImuProfile,
    rng: np.random.Generator,
    facing: str = "front",
    *,
    offset: float = 0.0,
    errors: ImuErrors | None = None,
) -> Imu:
    """The record that a phone of this profile keeps of a camera path.

    The IMU sits `profile.lever_arm` from the camera; the part's low-pass filter delays and
    smooths; then come scale factor, bias, noise, range and quantisation.

    Args:
        trajectory: of T_world_camera, valid from a little before t[0].
        t: (M,) true sampling instants in the video's clock (`imu_times`).
        profile: the part.
        rng: source of noise and, without `errors`, of bias and scale factor.
        facing: ``front`` or ``rear``.
        offset: t_imu − t_video, s.
        errors: of one particular unit; None draws them.

    Returns:
        Imu with t = true instants + offset + time-stamp jitter.
    """
    t = np.asarray(t, np.float64)
    arm = R_DEVICE_CAMERA[facing].T @ np.asarray(profile.lever_arm) if facing in R_DEVICE_CAMERA else 0
    placed = moved_trajectory(trajectory, arm) if np.any(arm) else trajectory
    force, rate = _filtered(placed, t, profile.bandwidth, facing)
    accel, gyro = apply_imu_errors(force, rate, profile, rng, errors=errors)
    return Imu(_stamped(t + offset, profile, rng), accel, gyro)


def _filtered(trajectory: Trajectory, t: np.ndarray, bandwidth: float, facing: str) -> tuple[np.ndarray, np.ndarray]:
    """True signals through a second-order low-pass, evaluated at t; bandwidth 0: unfiltered."""
    if bandwidth <= 0:
        return specific_force_and_rate(trajectory, t, facing)
    rate = 16.0 * bandwidth
    start = max(trajectory.start, t[0] - 0.1)
    grid = np.append(np.arange(start, t[-1], 1.0 / rate), t[-1])
    both = np.hstack(specific_force_and_rate(trajectory, grid, facing))
    b, a = butter(2, bandwidth, fs=rate)
    out, _ = lfilter(b, a, both, axis=0, zi=lfilter_zi(b, a)[:, None] * both[0])
    smooth = np.stack([np.interp(t, grid, column) for column in out.T], axis=1)
    return smooth[:, :3], smooth[:, 3:]


def _stamped(t: np.ndarray, profile: ImuProfile, rng: np.random.Generator) -> np.ndarray:
    stamps = t + np.clip(rng.normal(0.0, 1.0, len(t)), -2, 2) * profile.timestamp_jitter
    step = 0.1 / profile.rate
    late = np.maximum.accumulate(stamps - step * np.arange(len(t)))
    return late + step * np.arange(len(t))


def apply_imu_errors(
    force: np.ndarray,
    rate: np.ndarray,
    profile: ImuProfile,
    rng: np.random.Generator,
    *,
    errors: ImuErrors | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn true signals, sampled at `profile.rate`, into readings.

    White noise of one-sided density n becomes σ = n √(rate/2) a sample, as the datasheets'
    "rms = n √bandwidth" means it; an Allan deviation then reads n/√2 at 1 s. Bias instability
    is a sum of Gauss–Markov processes, one a decade, whose Allan floor is the given value.

    Args:
        force: (M, 3) m/s².
        rate: (M, 3) rad/s.
        profile: the part.
        rng: source of noise.
        errors: of one unit; None draws them.

    Returns:
        accel (M, 3) float32 and gyro (M, 3) float32.

    Source:
        IEEE Std 952-1997, annex C (noise terms and Allan variance).
    """
    errors = draw_imu_errors(profile, rng) if errors is None else errors
    accel = force @ errors.accel_matrix.T + errors.accel_bias
    gyro = rate @ errors.gyro_matrix.T + errors.gyro_bias
    dt = 1.0 / profile.rate
    accel += _sensor_noise(
        rng, len(accel), dt, profile.accel_noise, profile.accel_instability, profile.accel_random_walk
    )
    gyro += _sensor_noise(rng, len(gyro), dt, profile.gyro_noise, profile.gyro_instability, profile.gyro_random_walk)
    return (
        _digitised(accel, profile.accel_range, profile.accel_step),
        _digitised(gyro, profile.gyro_range, profile.gyro_step),
    )


def _sensor_noise(rng: np.random.Generator, n: int, dt: float, density: float, floor: float, walk: float) -> np.ndarray:
    noise = rng.normal(0.0, density * math.sqrt(0.5 / dt), (n, 3))
    noise += _flicker(rng, n, dt, floor)
    return noise + np.cumsum(rng.normal(0.0, walk * math.sqrt(dt), (n, 3)), axis=0)


def _flicker(rng: np.random.Generator, n: int, dt: float, floor: float) -> np.ndarray:
    """1/f noise (n, 3) with Allan floor `floor`: equal-variance Gauss–Markov processes a decade."""
    # S(f) = B²/(π f) one-sided, floor = 0.664 B; a decade of variance v gives v/(ln 10 · f)
    sigma = floor / 0.664 * math.sqrt(math.log(10.0) / math.pi)
    total = np.zeros((n, 3))
    for tau in (0.1, 1.0, 10.0, 100.0, 1000.0):
        keep = math.exp(-dt / tau)
        drive = rng.normal(0.0, sigma * math.sqrt(1.0 - keep**2), (n, 3))
        first = rng.normal(0.0, sigma, 3)
        total += lfilter([1.0], [1.0, -keep], drive, axis=0, zi=(keep * first)[None])[0]
    return total


def _digitised(values: np.ndarray, limit: float, step: float) -> np.ndarray:
    values = np.clip(values, -limit, limit)
    if step > 0:
        values = np.round(values / step) * step
    return (values + 0.0).astype(np.float32)


def resting_imu(
    profile: ImuProfile,
    rng: np.random.Generator,
    *,
    duration: float = CLIP_SECONDS,
    offset: float = 0.0,
    errors: ImuErrors | None = None,
) -> Imu:
    """The record of a phone that stands or lies somewhere, in any tilt from upright to flat."""
    tilt = math.radians(rng.uniform(0.0, 90.0))
    R = Rotation.from_euler("YXZ", [rng.uniform(-np.pi, np.pi), -tilt, rng.normal(0.0, 0.05)])
    T = np.eye(4)
    T[:3, :3] = R.as_matrix() @ np.diag([1.0, -1.0, -1.0])
    still = static_trajectory(T, start=-1.0, stop=duration + 1.0)
    times = imu_times(profile, rng, duration)
    return imu_from_trajectory(still, times, profile, rng, "rear", offset=offset, errors=errors)


def forge_imu(
    kind: str,
    rng: np.random.Generator,
    video_camera: Trajectory,
    profile: ImuProfile,
    *,
    facing: str = "front",
    duration: float = CLIP_SECONDS,
    offset: float = 0.0,
    motion_kind: str | None = None,
    errors: ImuErrors | None = None,
) -> Imu:
    """The IMU record that an injected video comes with.

    ``other_motion``: a hand moves the attacking phone while the injected pixels show another
    motion. ``rest``: the phone lies still. ``forged``: the attacker has estimated rotation
    from the video and sends it along: smoothed, with a wrong gain (the focal length is a
    guess), drift and delay, a made-up tremor, and no true linear acceleration.

    Args:
        kind: one of `FORGERIES`.
        rng: source of everything random.
        video_camera: the camera path that the injected pixels were taken on.
        profile: the phone that is posed as.
        facing: ``front`` or ``rear``.
        duration: length of the video, s.
        offset: t_imu − t_video, s.
        motion_kind: of the other motion; None draws a held one.
        errors: of one unit; None draws them.

    Raises:
        MotionError: if the kind is unknown.
    """
    if kind not in FORGERIES:
        raise MotionError(f"forgery {kind!r} is unknown; choose one of {FORGERIES}.")
    if kind == "rest":
        return resting_imu(profile, rng, duration=duration, offset=offset, errors=errors)
    if kind == "other_motion":
        held = [k for k in MOTIONS if k != "stand"]
        motion_kind = str(rng.choice(held)) if motion_kind is None else motion_kind
        path = camera_trajectory(motion_kind, rng, 0.4, duration)
    else:
        path = _estimated_path(video_camera, rng)
    times = imu_times(profile, rng, duration)
    return imu_from_trajectory(path, times, profile, rng, facing, offset=offset, errors=errors)


def _estimated_path(camera: Trajectory, rng: np.random.Generator) -> Trajectory:
    """Rotation as an attacker would read it off the video; the place is unknown, so constant."""
    margin = 0.1
    t = np.arange(camera.start + margin, camera.stop - margin, 1.0 / _KNOT_RATE)
    phi = camera.rotation(t - rng.uniform(-0.06, 0.06)) * np.clip(rng.normal(1.0, 0.12), 0.7, 1.3)
    width = round(rng.uniform(0.10, 0.25) * _KNOT_RATE) | 1
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(phi, ((width // 2, width // 2), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(c, window / window.sum(), "valid") for c in padded.T], axis=1)
    move, turn = _shake(rng, t, HandMotion(0.0, math.radians(0.8), 0.06, 0.010))
    R = camera.mean @ Rotation.from_rotvec(smooth + turn).as_matrix()
    return make_trajectory(t, move, R, kind="forged")
