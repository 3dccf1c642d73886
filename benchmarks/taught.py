"""What taught cameras are worth on simulated test clips, whose attacks and motion records real data sets lack.

    python benchmarks/taught.py RUN [--draws 8]

RUN is a run of the full profile with its prepared clips (RUN/features). Each camera that most test clips are of is
taught, in each draw, by as few people as have four living clips, two prints and two replays between them; everybody
else in front of it is judged. Of each species the shares that are accepted, asked (*not sure*) and rejected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from liveness_utils import bundle as bundles
from liveness_utils import config, export
from liveness_utils import dataset as ds
from liveness_utils.deployment import camera as cameras
from liveness_utils.deployment import teaching
from liveness_utils.deployment.camera import Evidence, Taught, TaughtCamera

ENOUGH = {cameras.LIVING: 4, "print": 2, "replay": 2}  # clips that teach, by what their species' name holds


def measured(prepared: ds.Prepared, bundle: bundles.Bundle) -> tuple[pd.DataFrame, list[Evidence]]:
    """Test clips and what the shipped model measures of each."""
    rows, fill = prepared.rows("test"), np.asarray(bundle.feature_fill, np.float32)
    names = ("logit", "pixels", "embedding")
    out = export.run_file(bundle.path("model.tflite"), prepared, fill, rows=rows, names=names, progress=True)
    table = prepared.manifest.iloc[rows].reset_index(drop=True)
    table["kind"] = prepared.species_names[rows]
    value = bundle.threshold(np.ones(3))["value"]
    limit, motion = float(np.log(value / (1 - value))), np.ravel(out["logit"]) - np.ravel(out["pixels"])
    seen = [
        Evidence(
            embedding.astype(float), cameras.image_statistics(prepared.crops[row]), float(moves), limit, (256, 256)
        )
        for embedding, row, moves in zip(out["embedding"], rows, motion, strict=True)
    ]
    return table.assign(general=np.ravel(out["logit"]) >= limit), seen


def taught(table: pd.DataFrame, seen: list[Evidence], order: np.ndarray, bundle: bundles.Bundle) -> tuple:
    """A camera taught by the first people of an order who have enough clips, and who they are."""
    rows: list[Taught] = []
    who = []
    for person in order:
        who.append(person)
        for k in table.index[table["subject_id"] == person]:
            kind = table["kind"][k]
            if any(word in kind for word in ENOUGH):
                rows += teaching.label([seen[k]], kind, names=[str(k)], person=str(person))
        if all(sum(word in row.kind for row in rows) >= least for word, least in ENOUGH.items()):
            break
    camera: TaughtCamera = teaching.teach(rows, bundle)
    return camera, who


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=8)
    options = parser.parse_args()
    bundle = bundles.load(config.released_bundle())
    table, seen = measured(ds.open_prepared(options.run / "features"), bundle)
    rows, teachers = [], []
    for _, part in table.groupby("device_id"):
        for draw in range(options.draws if len(part) >= 100 else 0):
            order = np.random.default_rng([1, draw]).permutation(part["subject_id"].unique())
            camera, who = taught(part, seen, order, bundle)
            teachers.append(len(who))
            for k in part.index[~part["subject_id"].isin(who)]:
                rows.append({"kind": part["kind"][k], "general": part["general"][k], "decision": camera.judge(seen[k]).decision})  # fmt: skip
    found = pd.DataFrame(rows)
    shares = found.groupby("kind")["decision"].value_counts(normalize=True).unstack(fill_value=0.0)
    shares.insert(0, "accepted, general", found.groupby("kind")["general"].mean())
    print(f"{len(teachers)} cameras taught by {np.mean(teachers):.1f} people in the mean; % of {len(found)} judgements")
    print((100 * shares).round(1).to_string())


if __name__ == "__main__":
    main()
