"""How much a frozen embedding knows: a linear head is taught by a few people and tested on all others.

Arrays of one data set come in (`Frames`), a table of AUC and EER a draw of people goes out. A frame is scored, the
mean over a video counts; a video is of one person, and nobody who taught is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    Raises:
        MetricError: lengths differ, a number is not finite, or a video is of two people or of two labels.
    """

    embedding: np.ndarray
    alive: np.ndarray
    person: np.ndarray
    video: np.ndarray
    kind: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
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
        return Frames(*(np.asarray(getattr(self, name))[rows] for name in self.__dataclass_fields__))


def taught(
    frames: Frames,
    *,
    people: Sequence[int] = (1, 2, 4),
    draws: int = 10,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    tested: Sequence[str] | None = None,
    videos: tuple[int, int] | None = None,
    c: float = C,
) -> pd.DataFrame:
    """Teach a linear head by a few people and test it on everybody else, several times.

    Args:
        frames: of one data set, or of one camera of it.
        people: how many teach.
        draws: of people, seeded; a draw of four begins with the two and the one of the same draw.
        seed: of the draws.
        kinds: attack species that are taught; None for all.
        tested: attack species that are tested; None for all.
        videos: at most so many bona fide and attack videos of each person teach; None for all.
        c: inverse strength of the head's ridge, see `fit_head`.

    Returns:
        One row a number of people and draw: people, draw, auc, eer, n (tested videos), taught (the people).

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
            if videos:
                learnt = learnt.where(_few_videos(learnt, videos, np.random.default_rng([seed, draw, count])))
            rates = _rates(learnt, frames.where(~of_teachers & _is_of(frames, tested)), c)
            rows.append({"people": count, "draw": draw, **rates, "taught": tuple(str(p) for p in order[:count])})
    return pd.DataFrame(rows)


def _rates(learnt: Frames, tested: Frames, c: float) -> dict:
    check_apart(learnt, tested)
    _need_both(learnt, tested)
    by_video = score_videos(fit_head(learnt, c), tested)
    auc = float(roc_auc_score(by_video["alive"], by_video["score"]))
    return {"auc": auc, "eer": eer(by_video["score"], by_video["alive"]), "n": len(by_video)}


def _is_of(frames: Frames, kinds: Sequence[str] | None) -> np.ndarray:
    return np.isin(frames.kind, kinds) | (frames.alive == 1) if kinds else np.ones(len(frames.alive), bool)


def _few_videos(frames: Frames, most: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Mask (n,) of the frames of at most so many (bona fide, attack) videos a person."""
    table = pd.DataFrame({"video": frames.video, "person": frames.person, "alive": frames.alive}).drop_duplicates()
    table = table.sample(frac=1.0, random_state=rng)
    place = table.groupby(["person", "alive"]).cumcount()
    chosen = table["video"][place < np.where(table["alive"] == 1, most[0], most[1])]
    return np.isin(frames.video, chosen)


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


def _need_both(*sides: Frames) -> None:
    if any(len(np.unique(side.alive)) < 2 for side in sides):
        raise MetricError("A draw of people has no living face or no attack: give frames of both for each person.")


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


def score_videos(head: Pipeline, frames: Frames) -> pd.DataFrame:
    """Mean logit of each video's frames, higher for a living face: video (the index), alive, score."""
    table = pd.DataFrame({"video": frames.video, "alive": frames.alive})
    table["score"] = head.decision_function(frames.embedding)
    return table.groupby("video").agg(alive=("alive", "first"), score=("score", "mean"))


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
