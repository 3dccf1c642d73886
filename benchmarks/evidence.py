"""Less evidence never helps: how many rejected attacks are accepted when their evidence is cut, shifted or spoilt.

    python benchmarks/evidence.py DATA_DIR [--attacks 28] [--bona-fide 120] [--draws 4] [--workers 2]

Generates so many dev clips of each species, by the full profile's plan, into DATA_DIR (which can be resumed), judges
each with the released bundle, changes it in every way of `CHANGES` and judges it again. What a change leaves as it
was is measured once. `tests/test_evidence.py` does the same over data/samples.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from liveness_utils import clips, config, cues, runtime
from liveness_utils.clips import Clip, Imu

Change = Callable[[Clip, np.random.Generator], Clip]


# ---------------------------------------------------------------------------------- changes of the motion record
def keep_samples(clip: Clip, kept: np.ndarray) -> Clip:
    """The clip with some of its motion samples, (M,) bool."""
    imu = clip.imu
    return replace(clip, imu=replace(imu, t=imu.t[kept], accel=imu.accel[kept], gyro=imu.gyro[kept]))


def cut(clip: Clip, rng: np.random.Generator) -> Clip:
    """Take out 0.05 s to all of the record, anywhere."""
    t, length = clip.imu.t, float(np.exp(rng.uniform(np.log(0.05), np.log(3.2))))
    start = rng.uniform(t[0] - 0.5 * length, t[-1])
    return keep_samples(clip, (t < start) | (t > start + length))


def late_start(clip: Clip, rng: np.random.Generator) -> Clip:
    """Begin up to 1.5 s after the record did."""
    return keep_samples(clip, clip.imu.t > clip.imu.t[0] + rng.uniform(0.05, 1.5))


def early_end(clip: Clip, rng: np.random.Generator) -> Clip:
    """End 0.35 to 1.5 s before the record did: 0.05 s and more before the last frame."""
    return keep_samples(clip, clip.imu.t < clip.imu.t[-1] - rng.uniform(0.35, 1.5))


def thin(clip: Clip, rng: np.random.Generator) -> Clip:
    """Keep every second to tenth sample, or drop a random share."""
    n = len(clip.imu)
    step = int(rng.integers(2, 11))
    return keep_samples(
        clip, np.arange(n) % step == 0 if rng.random() < 0.5 else rng.random(n) > rng.uniform(0.05, 0.6)
    )


def shift(clip: Clip, rng: np.random.Generator) -> Clip:
    """Move the record by ±0.02 to ±10 s; half of the records are as long as needed, so that none shows it by its ends."""
    seconds = rng.choice([-1, 1]) * float(np.exp(rng.uniform(np.log(0.02), np.log(10.0))))
    if rng.random() < 0.5:
        return replace(clip, imu=replace(clip.imu, t=clip.imu.t + seconds))
    return replace(clip, imu=moved(clip.imu, seconds))


def moved(imu: Imu, seconds: float) -> Imu:
    """A longer record of the same phone, which goes back and forth again at both ends, moved by so much."""
    times = [imu.t]
    accel, gyro = [imu.accel], [imu.gyro]
    for _ in range(int(abs(seconds) // 3) + 1):
        times = [
            times[0][0] - (imu.t[::-1] - imu.t[0])[:-1] - 0.01,
            *times,
            times[-1][-1] + (imu.t[-1] - imu.t[::-1])[1:],
        ]
        accel = [accel[0][::-1][:-1], *accel, accel[-1][::-1][1:]]
        gyro = [-gyro[0][::-1][:-1], *gyro, -gyro[-1][::-1][1:]]
    t = np.concatenate(times)
    good = np.diff(t, prepend=-np.inf) > 0
    return Imu(t[good] + seconds, np.concatenate(accel)[good], np.concatenate(gyro)[good])


def scale(clip: Clip, rng: np.random.Generator) -> Clip:
    """Other units, or a wrong gain, of times, accelerometer or gyroscope."""
    name, factors = [
        ("t", (1e3, 1e6, 1e9, 1 / 60, 1 / 86400, 0.9, 0.97, 1.03, 1.1)),
        ("accel", (1 / 9.80665, -1.0, 0.5, 0.9, 0.97, 1.03, 1.1, 2.0)),
        ("gyro", (180 / np.pi, -1.0, 0.0, 0.1, 0.5, 0.9, 1.1, 2.0, 5.0)),
    ][rng.integers(3)]
    values = getattr(clip.imu, name)
    return replace(clip, imu=replace(clip.imu, **{name: (values * rng.choice(factors)).astype(values.dtype)}))


def noise(clip: Clip, rng: np.random.Generator) -> Clip:
    """White noise on one sensor or both: up to 3 m/s² and 1 rad/s, or nothing else than that."""
    accel, gyro = clip.imu.accel, clip.imu.gyro
    which = rng.integers(3)
    if which != 1:
        base = accel if rng.random() < 0.8 else accel.mean(0) + 0 * accel
        accel = (base + rng.normal(0, np.exp(rng.uniform(np.log(0.02), np.log(3.0))), accel.shape)).astype(np.float32)
    if which != 0:
        base = gyro if rng.random() < 0.8 else 0 * gyro
        gyro = (base + rng.normal(0, np.exp(rng.uniform(np.log(0.002), 0.0)), gyro.shape)).astype(np.float32)
    return replace(clip, imu=replace(clip.imu, accel=accel, gyro=gyro))


def one_sensor(clip: Clip, rng: np.random.Generator) -> Clip:
    """Without accelerometer or gyroscope, or with a constant, zeros or NaN in its place."""
    name = rng.choice(["accel", "gyro"])
    values = getattr(clip.imu, name)
    spoilt = values.copy()
    spoilt[rng.integers(len(values))] = np.nan
    others = (None, 0 * values, 0 * values + values[:1], spoilt)
    return replace(clip, imu=replace(clip.imu, **{name: others[rng.integers(len(others))]}))


def frozen(clip: Clip, rng: np.random.Generator) -> Clip:
    """Values stand still from some time on, for a while."""
    start, length = rng.uniform(-0.3, 2.3), rng.uniform(0.1, 2.5)
    t = clip.imu.t
    held = np.where((t > start) & (t < start + length), np.searchsorted(t, start, side="right"), np.arange(len(t)))
    held = np.clip(held, 0, len(t) - 1)
    return replace(clip, imu=replace(clip.imu, accel=clip.imu.accel[held], gyro=clip.imu.gyro[held]))


def reverse(clip: Clip, rng: np.random.Generator) -> Clip:
    """Time runs backwards, with the values as they were or with the rates' signs turned, too."""
    imu, sign = clip.imu, rng.choice([-1.0, 1.0])
    t = imu.t[0] + imu.t[-1] - imu.t[::-1]
    return replace(clip, imu=Imu(t, imu.accel[::-1], (sign * imu.gyro[::-1]).astype(np.float32)))


def swap_axes(clip: Clip, rng: np.random.Generator) -> Clip:
    """Other axes or signs, of both sensors or one."""
    order, signs = rng.permutation(3), rng.choice([-1.0, 1.0], 3).astype(np.float32)
    which = rng.integers(3)
    changed = {n: getattr(clip.imu, n)[:, order] * signs for n in (("accel", "gyro"), ("accel",), ("gyro",))[which]}
    return replace(clip, imu=replace(clip.imu, **changed))


def upside_down(clip: Clip, rng: np.random.Generator) -> Clip:
    """Turned half round about one axis, or with the other sign of gravity."""
    signs = np.array([(-1, -1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, -1)][rng.integers(4)], np.float32)
    gyro = clip.imu.gyro if signs.prod() < 0 else clip.imu.gyro * signs
    return replace(clip, imu=replace(clip.imu, accel=clip.imu.accel * signs, gyro=gyro))


def remove(clip: Clip, rng: np.random.Generator) -> Clip:
    """Leave the record out where it was promised."""
    return replace(clip, imu=None)


# ------------------------------------------------------------------------------------------ changes of the video
def keep_frames(clip: Clip, kept: np.ndarray) -> Clip:
    """The clip with some of its frames, (N,) bool, its clocks counted from the first one."""
    zero = clip.t[kept][0]
    return replace(clip, frames=clip.frames[kept], t=clip.t[kept] - zero, imu=replace(clip.imu, t=clip.imu.t - zero))


def cut_video(clip: Clip, rng: np.random.Generator) -> Clip:
    """Take out frames of 0.03 to 1 s at the start, the end or between."""
    length = float(np.exp(rng.uniform(np.log(0.03), 0.0)))
    start = rng.choice([0.0, clip.t[-1] - length, rng.uniform(0.05, 2.0)])
    kept = (clip.t < start) | (clip.t > start + length)
    kept[rng.integers(len(kept))] |= not kept.any()
    return keep_frames(clip, kept)


def drop_frames(clip: Clip, rng: np.random.Generator) -> Clip:
    """Leave out every second to fifth frame, or a random share."""
    n, step = len(clip.t), int(rng.integers(2, 6))
    return keep_frames(clip, np.arange(n) % step != 1 if rng.random() < 0.5 else rng.random(n) > rng.uniform(0.02, 0.6))


CHANGES: dict[str, Change] = {
    "record cut": cut, "late start": late_start, "early end": early_end, "samples left out": thin, "shifted": shift,
    "scaled": scale, "noise": noise, "one sensor": one_sensor, "frozen": frozen, "reversed": reverse,
    "axes swapped": swap_axes, "upside down": upside_down, "record removed": remove,
    "video cut": cut_video, "frames left out": drop_frames,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- judging
class Memory:
    """What was measured on a clip's frames, once: faces, crops, and features but for those that the IMU has part in."""

    def __init__(self, landmarker) -> None:
        self._landmarker, self._known, self._crop = landmarker, {}, runtime.face_crop

    def once(self, key: tuple, measure: Callable, *args):
        """What `measure` said of this key before, or says now."""
        if key not in self._known:
            self._known[key] = measure(*args)
        return self._known[key]

    def forget(self) -> None:
        """Begin another clip."""
        self._known.clear()
        self._landmarker.reset()

    def reset(self) -> None:
        """Of a landmarker: the same video comes again."""

    def detect(self, rgb, t=0.0, intrinsics=None):
        """As `Landmarker.detect`."""
        return self.once(("face", mark(rgb)), self._landmarker.detect, rgb, t, intrinsics)

    def count_faces(self, rgb):
        """As `Landmarker.count_faces`."""
        return self.once(("faces", mark(rgb)), self._landmarker.count_faces, rgb)

    def face_crop(self, frame, box, size, margin):
        """As `landmarks.face_crop`."""
        place = None if box is None else tuple(box)
        return self.once(("crop", mark(frame), place), self._crop, frame, box, size, margin)

    def extractor(self, intrinsics=None, facing="front"):
        """As `cues.FeatureExtractor`."""
        return Recalled(self, intrinsics, facing)


def mark(frame: np.ndarray) -> int:
    """Tell one frame of a clip from the others."""
    return hash(frame[::16, ::16].tobytes())


class Recalled(cues.FeatureExtractor):
    """Measures a frame that comes after the same frames as before only where the IMU has part in it."""

    def __init__(self, memory: Memory, intrinsics, facing: str) -> None:
        super().__init__(intrinsics, facing)
        self._memory, self._settings, self._seen, self._key = memory, (intrinsics, facing), [], 0
        self._whole: cues.FeatureExtractor | None = None

    def push(self, frame, t, face):
        """As `FeatureExtractor.push`."""
        self._key = hash((self._key, mark(frame), t))
        self._seen.append((frame, t, face))
        held = self._memory.once(("features", self._key), self._measure)
        return self.push_other_imu(t, face, *held)

    def _measure(self):
        """Motion and features of the newest frame, by an extractor that was shown all of them."""
        if self._whole is None:
            self._whole = cues.FeatureExtractor(*self._settings)
            for frame, t, face in self._seen[:-1]:
                self._whole.push(frame, t, face)
        frame, t, face = self._seen[-1]
        motion = self._whole.measure(frame, t, face)
        return motion, self._whole.push_motion(frame.shape, t, face, motion)


class Judge:
    """The released bundle in a session that expects motion data and remembers what it measured on a clip's frames.

    Args:
        patch: sets an attribute of a module, as `setattr` does.
    """

    def __init__(self, patch: Callable = setattr) -> None:
        self.bundle = runtime.load(config.default_bundle())
        self._session = runtime.LivenessSession(self.bundle, stream=False, require_imu=True)
        self._memory = self._session._landmarker = Memory(self._session._landmarker)
        patch(runtime, "face_crop", self._memory.face_crop)
        patch(runtime, "FeatureExtractor", self._memory.extractor)

    def forget(self) -> None:
        """Begin another clip."""
        self._memory.forget()

    def __call__(self, clip: Clip) -> runtime.Verdict:
        return runtime.predict_clip(clip, self.bundle, session=self._session)


def cases(clip: Clip, draws: int, seed: int) -> Iterator[tuple[str, Clip]]:
    """Every change of a clip, so many times, by seed."""
    for name, change in CHANGES.items():
        for draw in range(draws if change is not remove else 1):
            yield name, change(clip, np.random.default_rng([seed, draw, *name.encode()]))


def judge_clip(judge: Judge, clip: Clip, draws: int, seed: int) -> dict:
    """One clip as it is and, where it is a rejected attack, changed: verdicts and what became accepted."""
    judge.forget()
    first = judge(clip)
    held = {"clip": clip.clip_id, "species": clip.meta.get("pai_species") or "bona_fide", "decision": first.decision,
            "score": first.score, "reasons": list(first.reasons), "changed": []}  # fmt: skip
    if held["species"] != "bona_fide" and first.decision != "bona_fide":
        for name, changed in cases(clip, draws, seed):
            found = judge(changed)
            held["changed"].append([name, found.decision, found.score])
    return held


# ------------------------------------------------------------------------------------------------------ the table
def generated(root: Path, attacks: int, bona_fide: int, workers: int) -> list[dict]:
    """Manifest rows of the first dev clips of each species in the full profile's plan, made where they are missing."""
    from joblib import Parallel, delayed

    from liveness_utils import simulate

    taken: Counter = Counter()
    chosen = []
    for spec in (s for s in simulate.plan("full", 0) if s.split == "dev"):
        if taken[spec.species] < (bona_fide if spec.species == "bona_fide" else attacks):
            taken[spec.species] += 1
            chosen.append(spec)
    groups = simulate._grouped(chosen)
    made = Parallel(n_jobs=workers)(delayed(simulate.make_clips)(group, str(root)) for group in groups)
    return [row for rows in made for row in rows]


def judged(root: Path, rows: list[dict], draws: int) -> list[dict]:
    """`judge_clip` of some rows: what one worker does."""
    judge = Judge()
    return [judge_clip(judge, clips.load_clip(root, row["clip_id"], row=row), draws, int(row["seed"])) for row in rows]


def table(results: list[dict]) -> str:
    """Rejections that became acceptances, by kind of change, with k/n; and refused bona fide clips."""
    attacks = [r for r in results if r["species"] != "bona_fide"]
    people = [r for r in results if r["species"] == "bona_fide"]
    rejected = [r for r in attacks if r["decision"] != "bona_fide"]
    accepted, refused, tried = Counter(), Counter(), Counter()
    for name, decision, _ in (c for r in rejected for c in r["changed"]):
        tried[name] += 1
        accepted[name] += decision == "bona_fide"
        refused[name] += decision == "no_decision"
    lines = [f"{len(rejected)} of {len(attacks)} attacks rejected as they are; each then changed:", ""]
    lines += ["| change | accepted | no decision |", "|---|---|---|"]
    lines += [f"| {n} | {accepted[n]}/{tried[n]} | {refused[n]}/{tried[n]} |" for n in CHANGES]
    lines += [f"| all | {accepted.total()}/{tried.total()} | {refused.total()}/{tried.total()} |", ""]
    decided = Counter(r["decision"] for r in people)
    lines += [f"bona fide: {decided['bona_fide']}/{len(people)} accepted, {decided['no_decision']} without decision"]
    return "\n".join(lines)


def main() -> None:
    """Read the command line, generate, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--attacks", type=int, default=28, help="dev clips of each attack species")
    parser.add_argument("--bona-fide", type=int, default=120)
    parser.add_argument("--draws", type=int, default=4, help="of each change, a clip")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    rows = generated(args.data, args.attacks, args.bona_fide, args.workers)
    file = args.data / f"evidence_{args.draws}.jsonl"  # one line a clip; what stands there is not judged again
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known = {held["clip"] for held in map(json.loads, lines)}
    rest = [row for row in rows if row["clip_id"] not in known]
    parts = [rest[k : k + 4] for k in range(0, len(rest), 4)]
    found = Parallel(args.workers, return_as="generator")(delayed(judged)(args.data, p, args.draws) for p in parts)
    for part in tqdm(found, total=len(parts)):
        lines += [json.dumps(held) for held in part]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(table([json.loads(line) for line in lines]))


if __name__ == "__main__":
    main()
