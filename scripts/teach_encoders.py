#!/usr/bin/env python3
"""Teach the picture encoders that the repository ships (data/encoder.pt), each on one thread, both at a time.

    python scripts/teach_encoders.py OUT.pt [--start FILE] [--kinds foveated] [--passes 18] [--profile full] [--seed 11]

They learn from single pictures, which are made where they are missing, and the training clips of a prepared run, from
nothing or on from a file of encoders. A pass of the full profile takes a minute and a half. The lesson is
`training.learn_pictures`; its log goes into the file, and beside it as OUT_lesson/.
"""

import argparse
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed

from liveness_utils import config, dataset, model, pictures, training


def lesson(kind: str, args: argparse.Namespace) -> tuple[dict, Path]:
    """Teach one kind of crops' encoder; its parts' weights, and the folder of its log."""
    import lightning.pytorch as pl
    import torch

    torch.set_num_threads(1)
    pl.seed_everything(args.seed, workers=True)
    paths = config.paths(args.profile)
    prepared, singles = dataset.open_prepared(paths.features), pictures.open_pictures(paths.pictures)
    net = model.build(model.ModelConfig(prepared.features.shape[-1], fovea=True))
    if args.start:
        training.take_encoders(net, args.start)
    settings = training.TrainConfig(
        str(paths.features), str(args.out.with_name(f"{args.out.stem}_lesson")), encoder_epochs=args.passes, seed=args.seed, fovea=True,
        progress=False,
    )  # fmt: skip
    each = {"each": training.CLIP_PICTURES, "kind": kind, "emphasis": args.emphasis}
    with training.quiet():
        training.learn_pictures(net, prepared, settings, singles, **each)
    return {name: part.state_dict() for name, part in training.encoder_parts(net, kind).items()}, Path(settings.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="file of encoders that learn on")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=training.ENCODERS,
        default=training.ENCODERS,
        help="that learn; others stay as in --start",
    )
    parser.add_argument("--passes", type=int, default=18, help="of the first half of the lesson")
    parser.add_argument("--emphasis", type=float, default=1.5, help="weight of living faces and masks")
    parser.add_argument("--profile", default="full")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    if not args.start and set(args.kinds) != set(training.ENCODERS):
        parser.error("one kind can learn by itself only where --start brings the other")
    paths = config.paths(args.profile)
    prepared = dataset.open_prepared(paths.features)
    pictures.prepare_for(config.profile(args.profile), paths.pictures)
    taught = Parallel(2)(delayed(lesson)(kind, args) for kind in args.kinds)
    net = model.build(model.ModelConfig(prepared.features.shape[-1], fovea=True))
    if args.start:
        training.take_encoders(net, args.start)
    for kind, (states, _) in zip(args.kinds, taught, strict=True):
        for name, part in training.encoder_parts(net, kind).items():
            part.load_state_dict(states[name])
    log = training.encoder_log(taught[0][1] / "checkpoint.pt")
    log = log[log["kind"].isin(args.kinds)]  # an earlier lesson's may lie there, too
    if args.start:
        before = training.encoder_log("", args.start)
        log = pd.concat([before[~before["kind"].isin(args.kinds)], log], ignore_index=True)
    training.save_encoders(args.out, net, log.to_dict("list"))
    print(args.out)


if __name__ == "__main__":
    main()
