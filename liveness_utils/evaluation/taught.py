"""How much a frozen embedding knows: a linear head is taught by a few people and tested on all others.

Arrays of one data set come in (`Frames`), a table of AUC and EER a draw of people goes out. A frame is scored, the
mean over a video counts; a video is of one person, and nobody who taught is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from liveness_utils.errors import MetricError
from liveness_utils.metrics import eer

C = 0.003  # inverse strength of the head's ridge: few people, hundreds of numbers


@dataclass(frozen=True)
class Frames:
    """Embeddings of a data set's frames, with what is known of each.

    Attributes:
        embedding: (n, d) float.
        alive: (n,) 1 for bona fide, 0 for an attack.
        person: (n,) who is shown.
        video: (n,) which recording; a video is of one person and one kind.
        kind: (n,) species of an attack; anything for a living face.
        statistics: (n, 13) of `camera.image_statistics`, or None. group: (n,) camera, light or session, or None.

    Raises:
        MetricError: lengths differ, a number is not finite, or a video is of two people or of two labels.
    """

    embedding: np.ndarray
    alive: np.ndarray
    person: np.ndarray
    video: np.ndarray
    kind: np.ndarray
    statistics: np.ndarray | None = None
    group: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {len(column) for column in vars(self).values() if column is not None}
        if len(lengths) != 1:
            raise MetricError(f"Frames need as many labels as embeddings, not {sorted(lengths)}: give one of each.")
        if not np.isfinite(self.embedding).all():
            raise MetricError("An embedding is not finite: look for damaged pictures or weights.")
        table = pd.DataFrame({"video": self.video, "person": self.person, "alive": self.alive})
        for what in ("person", "alive"):
            if (several := table.groupby("video")[what].nunique()).max() > 1:
                raise MetricError(f"Video {several.idxmax()} has more than one {what}: name videos apart.")

    def where(self, rows: np.ndarray) -> Frames:
        """The frames that a boolean mask (n,) or an index names."""
        return Frames(**{k: None if v is None else np.asarray(v)[rows] for k, v in vars(self).items()})


Fit = Callable[[Frames], Callable[[Frames], np.ndarray]]  # teaches; gives logits (n,) above the head's own threshold


def taught(
    frames: Frames,
    *,
    people: Sequence[int] = (1, 2, 4),
    draws: int = 10,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    tested: Sequence[str] | None = None,
    clips: int | None = None,
    fit: Fit | None = None,
) -> pd.DataFrame:
    """Teach a linear head by a few people and test it on everybody else, several times.

    Args:
        frames: of one data set, or of one camera of it.
        people: how many teach.
        draws: of people, seeded; a draw of four begins with the two and the one of the same draw.
        seed: of the draws.
        kinds: attack species that are taught; None for all, () for bona fide alone.
        tested: attack species that are tested; None for all.
        clips: at most so many videos teach, living ones and attacks by turns; None for all.
        fit: of the head; the ridge of `fit_head` where None.

    Returns:
        One row a number of people and draw: people, draw, auc, eer, n (tested videos), taught (the people), and at
        the head's own threshold bpcer_k, bpcer_n, and apcer_k and apcer_n of each species as dicts.

    Raises:
        MetricError: too few people, or a draw without both labels on either side.
    """
    rows = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(np.unique(frames.person))
        if max(people) >= len(order):
            raise MetricError(f"{len(order)} people cannot be {max(people)} who teach and others to test: give more.")
        for count in people:
            of_teachers = np.isin(frames.person, order[:count])
            learnt = frames.where(of_teachers & _is_of(frames, kinds))
            if clips:
                learnt = learnt.where(_few_videos(learnt, clips, np.random.default_rng([seed, draw, count])))
            rates = _rates(learnt, frames.where(~of_teachers & _is_of(frames, tested)), fit or ridge())
            rows.append({"people": count, "draw": draw, **rates, "taught": tuple(str(p) for p in order[:count])})
    return pd.DataFrame(rows)


def ridge(c: float = C) -> Fit:
    """The linear head of `fit_head`, its threshold at zero."""

    def fit(learnt: Frames) -> Callable[[Frames], np.ndarray]:
        if len(np.unique(learnt.alive)) < 2:
            raise MetricError("A draw of people has no living face or no attack: give frames of both for each person.")
        head = fit_head(learnt, c)
        return lambda frames: head.decision_function(frames.embedding)

    return fit


def _rates(learnt: Frames, tested: Frames, fit: Fit) -> dict:
    check_apart(learnt, tested)
    if len(np.unique(tested.alive)) < 2:
        raise MetricError("Nobody is left to test, or no attack: give frames of both labels of more people.")
    videos = by_video(tested, fit(learnt)(tested))
    auc = float(roc_auc_score(videos["alive"], videos["score"]))
    living, attacks = videos[videos["alive"] == 1], videos[videos["alive"] == 0]
    species = attacks.groupby("kind")["score"]
    return {
        "auc": auc, "eer": eer(videos["score"], videos["alive"]), "n": len(videos),
        "bpcer_k": int((living["score"] < 0).sum()), "bpcer_n": len(living),
        "apcer_k": species.agg(lambda x: int((x >= 0).sum())).to_dict(), "apcer_n": species.size().to_dict(),
    }  # fmt: skip


def _is_of(frames: Frames, kinds: Sequence[str] | None) -> np.ndarray:
    return np.ones(len(frames.alive), bool) if kinds is None else np.isin(frames.kind, kinds) | (frames.alive == 1)


def _few_videos(frames: Frames, most: int, rng: np.random.Generator) -> np.ndarray:
    """Mask (n,) of the frames of at most so many videos, the two labels by turns."""
    table = pd.DataFrame({"video": frames.video, "alive": frames.alive}).drop_duplicates()
    table = table.sample(frac=1.0, random_state=rng)
    turn = 2 * table.groupby("alive").cumcount() + (table["alive"] != 1)
    return np.isin(frames.video, table["video"].loc[turn.sort_values(kind="stable").index[:most]])


def check_apart(learnt: Frames, tested: Frames) -> None:
    """Hold that nothing of what was taught is tested.

    Args:
        learnt: frames that teach.
        tested: frames that are scored.

    Raises:
        MetricError: a person, a video or the very same frame is on both sides.
    """
    sides = {name: (getattr(learnt, name), getattr(tested, name)) for name in ("person", "video")}
    sides["frame"] = tuple(np.array([row.tobytes() for row in side.embedding], object) for side in (learnt, tested))
    for name, (a, b) in sides.items():
        if set(a) & set(b):
            raise MetricError(f"A {name} that taught is tested, too: split by person, and remove copies.")


def fit_head(frames: Frames, c: float = C) -> Pipeline:
    """Fit a standardised logistic regression, classes balanced, to frames' embeddings.

    Args:
        frames: that teach; both labels.
        c: inverse strength of the ridge: larger fits closer.

    Returns:
        A pipeline whose `decision_function` is higher for a living face.
    """
    ridge = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
    return make_pipeline(StandardScaler(), ridge).fit(frames.embedding, frames.alive)


def by_video(frames: Frames, logit: np.ndarray) -> pd.DataFrame:
    """Mean of frames' logits (n,) a video, higher for a living face: video (the index), alive, kind, score."""
    table = pd.DataFrame({"video": frames.video, "alive": frames.alive, "kind": frames.kind, "score": logit})
    return table.groupby("video").agg(alive=("alive", "first"), kind=("kind", "first"), score=("score", "mean"))


def summary(table: pd.DataFrame, by: Sequence[str] = ("people",)) -> pd.DataFrame:
    """Mean and spread over draws of `taught`'s tables.

    Args:
        table: rows of `taught`, of several calls with a column that tells them apart if need be.
        by: columns that group them.

    Returns:
        auc, auc_std, eer, eer_std (standard deviations over draws), draws; indexed by `by`.
    """
    grouped = table.groupby(list(by), sort=False)
    columns = {f"{name}{end}": (name, how) for name in ("auc", "eer") for end, how in (("", "mean"), ("_std", "std"))}
    return grouped.agg(**columns, draws=("draw", "size"))
