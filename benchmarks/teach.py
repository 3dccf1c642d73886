"""What a taught camera costs: teaching from nine clips, the fit alone, a verdict with it against one without, the file.

    python benchmarks/teach.py [--bundle DIR] [--repeats N]

The clips are data/samples', three of them living (one clip at three exposures: time, not skill, is measured here), on
one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np

from liveness_utils import bundle as bundles
from liveness_utils import clips, config, runtime
from liveness_utils.clips import Clip
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment import teaching

TARGETS = {"teach": 20.0, "fit": 1.0, "verdict": 2.0, "file": 200.0}  # s, s, ms more, kB


def nine() -> Iterator[tuple[str, Clip]]:
    """Three living clips and six attacks, of 2.5 s each."""
    table = clips.read_manifest(config.samples_dir())
    kinds = table["pai_species"].fillna(cameras.LIVING)
    for row, kind in zip(table.to_dict("records"), kinds, strict=True):
        clip = clips.load_clip(config.samples_dir(), row["clip_id"], row=row)
        if kind == cameras.LIVING:
            for gain in (1.0, 0.9, 0.8):
                yield kind, replace(clip, frames=(gain * clip.frames).astype(np.uint8))
        elif kind not in ("injection", "rigid_mask"):
            yield kind, clip


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call."""
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=config.released_bundle())
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bundle, given = bundles.load(options.bundle), list(nine())
    rows: list[cameras.Taught] = []
    with runtime.LivenessSession(bundle, stream=False) as session:
        teaching.measure(given[0][1], session)  # warm

        def measure() -> None:
            rows.clear()
            for k, (kind, clip) in enumerate(given):
                rows.extend(teaching.label(teaching.measure(clip, session), kind, names=[str(k)]))

        measured = seconds(measure, 1)
        fitted = seconds(lambda: teaching.teach(rows, bundle), options.repeats)
        camera = teaching.teach(rows, bundle)
        judged = seconds(lambda: camera.judge(session.evidence), 20 * options.repeats)
        looked = seconds(lambda: cameras.image_statistics(np.zeros((25, 112, 112, 3), np.uint8)), 20 * options.repeats)
        bare = replace(given[0][1], imu=None)
        without = seconds(lambda: runtime.predict_clip(bare, bundle, session=session), options.repeats)
        session.camera = camera
        with_it = seconds(lambda: runtime.predict_clip(bare, bundle, session=session), options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        size = cameras.save(camera, Path(folder) / "camera.json").stat().st_size / 1e3
    for name, value, unit in (
        ("teach", measured + fitted, "s from nine clips, decoded"), ("fit", fitted, "s of it the fit"),
        ("verdict", 1e3 * (judged + looked), "ms more a verdict"), ("file", size, "kB"),
    ):  # fmt: skip
        print(
            f"{name:8} {value:8.2f} {unit} (aim: under {TARGETS[name]:g}) {'ok' if value < TARGETS[name] else 'MISSED'}"
        )
    print(
        f"a verdict with a taught camera takes {with_it / without:.2f} of the time of one without ({1e3 * without:.0f} ms)"
    )


if __name__ == "__main__":
    main()
