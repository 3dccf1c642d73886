"""What a linear head learns on each encoder's embedding, by people who taught: the rule that picks the encoder.

    python benchmarks/encoder.py [--encoder FILE ...] [--draws 10] [--margin 1.7] [--size 112] [--c 0.003] [--csv FILE]

The ImageNet weights and the encoder files given, in one run. Reads CASIA
frames and NUAA from $REAL_DIR (images/, nuaa/); they stay there, only face boxes are cached, in the user's cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import joblib
import numpy as np
import pandas as pd
import platformdirs

from liveness_utils import config
from liveness_utils.evaluation.taught import C, Frames, ridge, summary, taught
from liveness_utils.landmarks import Landmarker, face_crop

CAMERAS = {v: c for c, videos in {"low": "1357", "normal": "2468"}.items() for v in videos}
PEOPLE = (1, 2, 4)


def read(folder: Path) -> pd.DataFrame:
    """Rows of a data set's images.csv: path, alive, person, video, kind, camera."""
    table = pd.read_csv(folder / "images.csv", dtype={"subject": str, "video": str})
    return pd.DataFrame({
        "path": [str(folder / name) for name in table["file"]],
        "alive": table["is_bonafide"],
        "person": table["subject"],
        "video": table["subject"] + "/" + table["video"] + np.where(table["is_bonafide"] == 1, "", "/attack"),
        "kind": table["kind"].fillna("bona_fide").where(table["is_bonafide"] == 0, "bona_fide"),
        "camera": [CAMERAS.get(v, "high" if v.startswith("HR") else "") for v in table["video"]],
    })  # fmt: skip


def find_boxes(paths: list[str]) -> np.ndarray:
    """Face boxes (n, 4) of pictures by FaceLandmarker, NaN where it finds none."""
    boxes = np.full((len(paths), 4), np.nan)
    with Landmarker(running_mode="image") as landmarker:
        for k, path in enumerate(paths):
            seen = landmarker.detect(_rgb(path))
            if seen:
                boxes[k] = seen[0].box
    return boxes


def _rgb(path: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)


def crops_of(table: pd.DataFrame, size: int, margin: float) -> np.ndarray:
    """Face crops (n, size, size, 3) uint8; the middle of the picture where no face is found."""
    memory = joblib.Memory(platformdirs.user_cache_dir("liveness-course"), verbose=0)
    boxes = memory.cache(find_boxes)(list(table["path"]))
    return np.stack([face_crop(_rgb(p), b, size, margin) for p, b in zip(table["path"], boxes, strict=True)])


def candidates(files: list[Path]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name of each encoder and the function that embeds crops with it."""
    from liveness_utils.network import encoder as en

    encoders = {"imagenet": en.imagenet()} | {str(path): en.load_encoder(path)[0] for path in files}
    return {name: lambda crops, e=e: en.embed(e, crops) for name, e in encoders.items()}


def measure(table: pd.DataFrame, embedding: np.ndarray, draws: int, c: float) -> pd.DataFrame:
    """Rows of `taught` for all cameras mixed and, where there are several, each by itself."""
    named = ("alive", "person", "video", "kind")
    groups = {"mixed": np.ones(len(table), bool)}
    if table["camera"].nunique() > 1:
        groups |= {camera: (table["camera"] == camera).to_numpy() for camera in ("low", "normal", "high")}
    parts = []
    for group, rows in groups.items():
        frames = Frames(embedding[rows], *(table[name][rows].to_numpy() for name in named))
        parts.append(taught(frames, people=PEOPLE, draws=draws, fit=ridge(c)).assign(group=group))
    return pd.concat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, nargs="*", default=[], help="encoder files beside the ImageNet weights")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--margin", type=float, default=1.7)
    parser.add_argument("--c", type=float, default=C, help="inverse strength of the head's ridge")
    parser.add_argument("--csv", type=Path, help="file for the rows of every draw")
    options = parser.parse_args()
    real = config.real_dir()
    found = [n for n in ("images", "nuaa") if real and (real / n / "images.csv").is_file()]
    if not found:
        raise SystemExit("No images/images.csv or nuaa/images.csv in $REAL_DIR: there is nothing to measure on.")
    parts = []
    for name in found:
        table = read(real / name)
        crops = crops_of(table, options.size, options.margin)
        for encoder, embed in candidates(options.encoder).items():
            parts.append(measure(table, embed(crops), options.draws, options.c).assign(data=name, encoder=encoder))
    rows = pd.concat(parts)
    if options.csv:
        rows.to_csv(options.csv, index=False)
    print(report(rows))


def report(rows: pd.DataFrame) -> str:
    """Tables of all groups, of the mean of the cameras, and the number that the rule compares."""
    mixed = rows["group"] == "mixed"
    cameras = summary(rows[~mixed], ("data", "encoder", "people"))[["auc", "eer"]]
    of_rule = summary(rows[mixed], ("encoder", "data", "people"))["auc"].groupby("encoder").mean()
    tables = {
        "each group of videos": summary(rows, ("data", "group", "encoder", "people")).round(3),
        "mean of the cameras": cameras.round(3),
        "mean AUC over sets and people, cameras mixed": of_rule.round(4),
    }
    return "\n\n".join(f"{name}\n{table.to_string()}" for name, table in tables.items())


if __name__ == "__main__":
    main()
