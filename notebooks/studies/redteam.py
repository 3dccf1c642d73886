"""Red team: with the score in sight, how far must an attacker go to pass?

Specs of test clips come from `simulate`; each of an attacker's choices is moved in steps, the clip is made anew,
measured as any other, and scored. Out goes one score a clip and step, for notebook 06.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from liveness_utils.errors import SimulationError

if TYPE_CHECKING:
    import pandas as pd

    from liveness_utils.simulate import ClipSpec


@dataclass(frozen=True)
class Knob:
    """One of an attacker's choices: the species it belongs to, what it changes, and how far it is turned.

    field: of the instrument, or what `simulate.ClipSpec.changes` names. relative: levels are factors on the
    instrument's own value.
    """

    species: str
    field: str
    levels: tuple[float, ...]
    unit: str
    relative: bool = False


KNOBS = {
    "IMU": Knob("injection", "imu_truth", (0.0, 0.5, 0.8, 0.9, 1.0), "share of the video's true motion"),
    "screen distance": Knob("video_replay", "distance", (0.7, 1.0, 1.4, 2.0), "× the usual distance"),
    "moiré": Knob("video_replay", "grid_contrast", (0.0, 0.5, 1.0, 2.0), "× the screen's grid contrast", relative=True),
    "expression": Knob("soft_mask", "damping", (0.05, 0.35, 0.7, 1.0), "share of the wearer's expression"),
}


def turned(spec: ClipSpec, knob: Knob, level: float) -> ClipSpec:
    """The same presentation with one choice changed.

    Args:
        spec: of a clip of the knob's species. level: in the knob's unit.

    Raises:
        SimulationError: the clip is of another species.
    """
    from liveness_utils.instruments import instrument

    if spec.species != knob.species:
        raise SimulationError(f"{spec.clip_id} is a clip of {spec.species}; this knob turns clips of {knob.species}.")
    own = getattr(instrument(spec.species, spec.instrument), knob.field) if knob.relative else 1.0
    return replace(spec, changes=((knob.field, level * own),))


def chosen(specs: Sequence[ClipSpec], knob: Knob, count: int) -> list[ClipSpec]:
    """Up to `count` test clips of the knob's species, unseen instruments, by order of clip name.

    Clips of phones that do not move are left out where the knob is the IMU: nothing can be forged there.
    """
    fitting = [s for s in specs if s.species == knob.species and s.split == "test" and not s.control]
    if knob.field == "imu_truth":
        fitting = [s for s in fitting if s.motion_kind in ("natural", "sweep", "walking")] or fitting
    return sorted(fitting, key=lambda s: s.clip_id)[:count]


def measure(
    checkpoint: str | os.PathLike,
    specs: Sequence[ClipSpec],
    out_dir: str | os.PathLike,
    *,
    count: int,
    every_level: bool = True,
    workers: int = 2,
    progress: bool = True,
) -> pd.DataFrame:
    """Turn every knob on some test clips and score what comes of it; resumes where it stopped.

    Args:
        checkpoint: of the network. specs: of the data set, from `simulate.plan`.
        out_dir: one small file a clip and step is kept here, under a name of the checkpoint's own.
        count: clips a knob. every_level: all steps, or the first and the last. workers: processes.

    Returns:
        DataFrame: knob, level, clip_id, score (NaN = no decision).
    """
    import pandas as pd

    from liveness_utils.config import write_json
    from liveness_utils.network.fusion import load_checkpoint
    from studies.robustness import scores

    net, _ = load_checkpoint(checkpoint)
    folder = Path(out_dir) / hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:12]
    plans = list(_plans(specs, count, every_level))
    files = {plan: folder / f"{_mark(plan)}.json" for plan in plans}
    todo = [plan for plan in plans if not files[plan].is_file()]
    for plan, seen in _made(todo, workers, progress):
        name, level, spec = plan
        score = float(scores(net, [seen])[0])
        write_json(files[plan], {"knob": name, "level": level, "clip_id": spec.clip_id, "score": score})
    rows = [json.loads(files[plan].read_text(encoding="utf-8")) for plan in plans]
    return pd.DataFrame(rows, columns=("knob", "level", "clip_id", "score")).astype({"score": float})


def _plans(specs, count: int, every_level: bool) -> Iterator[tuple]:
    for name, knob in KNOBS.items():
        levels = knob.levels if every_level else (knob.levels[0], knob.levels[-1])
        yield from ((name, level, spec) for spec in chosen(specs, knob, count) for level in levels)


def _mark(plan: tuple) -> str:
    from liveness_utils.simulate import GENERATOR_VERSION

    return hashlib.sha256(repr((GENERATOR_VERSION, *plan)).encode()).hexdigest()[:16]


def _made(plans: Sequence[tuple], workers: int, progress: bool) -> Iterator[tuple]:
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    jobs = (delayed(_seen)(plan) for plan in plans)
    found = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers)(jobs)
    yield from tqdm(found, total=len(plans), desc="red team", disable=not progress)


def _seen(plan: tuple) -> tuple[tuple, tuple]:
    """Make the clip, write it as any clip is written, and measure what the network would see of it."""
    import cv2

    from liveness_utils import clips, simulate
    from studies import robustness

    cv2.setNumThreads(1)
    name, level, spec = plan
    clip = simulate.simulate(turned(spec, KNOBS[name], level))
    phone = simulate.DEVICES[spec.device]
    with tempfile.TemporaryDirectory() as root:
        clips.write_clip(root, clip, crf=phone.crf, preset=phone.preset)
        stored = clips.load_clip(root, clip.clip_id, row=clip.meta)
    return plan, robustness.perturbed_inputs(stored, [robustness.CLEAN])[robustness.CLEAN]


def passing(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Share of attacks that pass at each step of each knob.

    Args:
        table: from `measure`. threshold: a clip passes with a score at or above it; no decision never passes.

    Returns:
        DataFrame: knob, level, k, n, apcer, mean_score.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"knob": "IMU", "level": [0, 0], "clip_id": list("ab"), "score": [0.9, float("nan")]})
    >>> passing(rows, 0.5)[["k", "n"]].values.tolist()
    [[1, 2]]
    """
    grouped = table.assign(passed=table["score"] >= threshold).groupby(["knob", "level"], sort=False)
    out = grouped.agg(k=("passed", "sum"), n=("passed", "size"), mean_score=("score", "mean")).reset_index()
    return out.assign(apcer=out["k"] / out["n"])
