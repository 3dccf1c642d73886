"""Choose the sample clips that the repository ships: one test clip of every species.

A generated data set comes in; data/samples goes out, a data set of the same layout without the
truth. The rule looks at light and motion and never at a score. Run it after `liveness generate`:

    python scripts/make_samples.py --data data/generated/full
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from liveness_utils import clips, config
from liveness_utils.errors import ClipError, LivenessError

MAX_BYTES = 300_000
NORMAL_LUX = 100.0
# The more the phone moves, the more there is to see; walking blurs.
MOTIONS = ("sweep", "natural", "walking", "hold_still", "stand")
FILES = ("video.mp4", "imu.parquet")


def size(root: Path, clip_id: str) -> int:
    """Bytes of a clip's video and IMU record."""
    return sum((root / "clips" / clip_id / name).stat().st_size for name in FILES)


def choose(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return one row a species: a test clip in normal light that moves, small enough to ship.

    Args:
        table: manifest of a data set. root: its folder.

    Raises:
        ClipError: a species has no test clip under the limit.
    """
    test = table[table["split"] == "test"].copy()
    test["species"] = test["pai_species"].fillna("bona_fide")
    test["dark"] = test["illuminance_lux"] < NORMAL_LUX
    test["order"] = test["motion_kind"].map(MOTIONS.index)
    small = test[[size(root, c) <= MAX_BYTES for c in test["clip_id"]]]
    chosen = small.sort_values(["species", "dark", "order", "clip_id"]).groupby("species").head(1)
    missing = sorted(set(test["species"]) - set(chosen["species"]))
    if missing or chosen.empty:
        raise ClipError(f"{root}: no test clip under {MAX_BYTES} bytes of {missing or 'any species'}.")
    return chosen[[c for c in table.columns]]


def copy(table: pd.DataFrame, root: Path, out: Path) -> None:
    """Write the clips of a table from one data set's folder to a new one, truth left behind."""
    shutil.rmtree(out / "clips", ignore_errors=True)
    for clip_id in table["clip_id"]:
        target = out / "clips" / clip_id
        target.mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(root / "clips" / clip_id / name, target / name)
    clips.write_manifest(out, table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=config.data_dir("full"), help="generated data set")
    parser.add_argument("--out", type=Path, default=config.samples_dir())
    args = parser.parse_args(argv)
    try:
        chosen = choose(clips.read_manifest(args.data), args.data)
        copy(chosen, args.data, args.out)
    except LivenessError as error:
        sys.exit(str(error))
    for row in chosen.itertuples():
        name = "bona_fide" if row.is_bonafide else row.pai_species
        print(f"{row.clip_id}  {size(args.out, row.clip_id) / 1e3:5.0f} kB  {name}, {row.motion_kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
