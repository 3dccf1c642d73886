#!/usr/bin/env python3
"""Draw a second test set with another seed, and score a checkpoint on it.

    python scripts/second_test.py OUT [--seed 1] [--profile full] [--checkpoint data/bundle/checkpoint.pt]

As many people, clips, cameras, instruments and rooms as the profile's test split; people and presentations are
others. Ends with OUT/scores_test.csv, for `liveness evaluate`. Resumes where it stopped.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from liveness_utils import config, dataset, simulate
from liveness_utils.network.scoring import write_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", default="full")
    parser.add_argument("--checkpoint", type=Path, default=config.released_bundle() / "checkpoint.pt")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    sizes = config.profile(args.profile)
    only_test = {name: (0, 0, 0, getattr(sizes, name)[-1]) for name in ("bona_fide_clips", "attack_clips")}
    data, features = args.out / "data", args.out / "features"
    simulate.generate(replace(sizes, **only_test), data, seed=args.seed, workers=args.workers)
    dataset.prepare(data, features, workers=args.workers)
    print(*write_scores(args.checkpoint, features, args.out, splits=("test",)), sep="\n")


if __name__ == "__main__":
    main()
