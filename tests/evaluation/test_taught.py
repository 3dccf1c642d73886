"""The linear head's measurement: a set made by hand, people apart, leaks found."""

import numpy as np
import pytest

from liveness_utils.errors import MetricError
from liveness_utils.evaluation.taught import Frames, by_video, check_apart, fit_head, ridge, summary, taught


def made(separation: float, people: int = 8, noise: float = 1.0, seed: int = 0) -> Frames:
    """Frames of `people`, two living and four attack videos each; the first number tells them apart."""
    rng = np.random.default_rng(seed)
    kinds = ("", "", "print", "replay", "print", "replay")
    rows = [(p, v, int(v < 2), kinds[v]) for p in range(people) for v in range(6) for _ in range(3)]
    person, number, alive, kind = (np.array(x) for x in zip(*rows, strict=True))
    embedding = noise * rng.normal(size=(len(rows), 5))
    embedding[:, 0] += separation * (alive - 0.5)
    video = np.array([f"{p}/{v}" for p, v in zip(person, number, strict=True)])
    return Frames(embedding, alive, person.astype(str), video, kind)


def test_what_separates_is_learned_and_noise_is_not():
    clear, hidden = (summary(taught(made(s), draws=4)) for s in (12.0, 0.0))
    assert (clear["auc"] > 0.99).all() and (clear["eer"] < 0.02).all()
    assert hidden["auc"].between(0.3, 0.7).all()
    assert clear.index.tolist() == [1, 2, 4] and (clear["draws"] == 4).all()


def test_draws_repeat_and_nobody_who_taught_is_tested():
    frames = made(1.0)
    first, again = taught(frames, draws=3), taught(frames, draws=3)
    assert first.equals(again) and not first.equals(taught(frames, draws=3, seed=1))
    for row in first.itertuples():
        assert len(row.taught) == row.people
        assert row.n == 6 * (8 - row.people)
    assert first["taught"].iloc[0] == first["taught"].iloc[2][:1]  # four begin with the one


def test_score_of_a_video_is_the_mean_logit_of_its_frames():
    frames = made(2.0)
    head = fit_head(frames)
    table = by_video(frames, head.decision_function(frames.embedding))
    rows = frames.video == "3/1"
    assert table.loc["3/1", "score"] == pytest.approx(head.decision_function(frames.embedding[rows]).mean())
    assert table.loc["3/1", "alive"] == 1
    assert table.groupby("alive")["score"].mean().diff().iloc[-1] > 0  # higher is alive


def test_species_that_are_taught_can_be_chosen():
    frames = made(0.0, people=12)
    replay = frames.kind == "replay"
    frames.embedding[replay, 1] += 9.0  # replays differ from faces in one number, prints in another
    frames.embedding[frames.kind == "print", 2] += 9.0
    both = summary(taught(frames, draws=3))
    one = summary(taught(frames, draws=3, kinds=["replay"]))
    assert (both["auc"] > 0.99).all()
    assert (one["auc"] < 0.9).all()


def test_few_videos_teach_and_both_labels_are_among_them():
    frames = made(3.0)
    learnt = []

    def fit(given):
        learnt.append(given)
        return ridge()(given)

    few, all_of_them = (taught(frames, draws=3, clips=n, fit=fit) for n in (4, None))
    assert (few["n"] == all_of_them["n"]).all()  # all are tested
    for given in learnt[:9]:
        videos = {(v, a) for v, a in zip(given.video, given.alive, strict=True)}
        assert len(videos) == 4 and sum(alive for _, alive in videos) == 2
    assert len(set(learnt[-1].video)) == 24


def test_rates_at_the_threshold_count_videos_by_species():
    table = taught(made(12.0), draws=2)
    assert (table["bpcer_k"] == 0).all() and (table["bpcer_n"] == 2 * (8 - table["people"])).all()
    assert table["apcer_n"].iloc[0] == {"print": 14, "replay": 14} and set(table["apcer_k"].iloc[0].values()) == {0}
    strict = taught(made(12.0), draws=2, fit=lambda learnt: lambda frames: np.full(len(frames.alive), -1.0))
    assert (strict["bpcer_k"] == strict["bpcer_n"]).all() and (strict["auc"] == 0.5).all()
    alone = taught(made(12.0), draws=1, kinds=(), fit=lambda learnt: lambda frames: frames.embedding[:, 0])
    assert (alone["auc"] > 0.99).all(), "nothing but living faces may teach, where the head allows it"


def test_a_stronger_ridge_makes_smaller_weights():
    frames = made(3.0)
    weak, strong = (np.abs(fit_head(frames, c)[-1].coef_).max() for c in (1.0, 1e-3))
    assert strong < 0.5 * weak


@pytest.mark.parametrize("what", ["person", "video", "frame"])
def test_a_planted_leak_is_found(what):
    frames = made(1.0)
    learnt, tested = frames.where(frames.person == "0"), frames.where(frames.person != "0")
    check_apart(learnt, tested)
    if what == "frame":
        tested.embedding[0] = learnt.embedding[5]
    else:
        getattr(tested, what)[0] = getattr(learnt, what)[0]
    with pytest.raises(MetricError, match=what):
        check_apart(learnt, tested)


def test_a_copied_frame_stops_the_measurement():
    frames = made(1.0)
    frames.embedding[frames.person == "1"] = frames.embedding[frames.person == "0"]
    with pytest.raises(MetricError, match="frame that taught is tested"):
        taught(frames, draws=10)


def test_wrong_frames_are_refused():
    good = made(1.0)
    with pytest.raises(MetricError, match="as many"):
        Frames(good.embedding[:-1], good.alive, good.person, good.video, good.kind)
    with pytest.raises(MetricError, match="not finite"):
        Frames(good.embedding * np.nan, good.alive, good.person, good.video, good.kind)
    with pytest.raises(MetricError, match="more than one person"):
        Frames(good.embedding, good.alive, good.person, np.full(len(good.alive), "v"), good.kind)
    with pytest.raises(MetricError, match="more than one alive"):
        Frames(good.embedding, 1 - np.arange(len(good.alive)) % 2, good.person, good.video, good.kind)
    with pytest.raises(MetricError, match="people cannot be"):
        taught(made(1.0, people=4))
    with pytest.raises(MetricError, match="Nobody is left to test|no living face or no attack"):
        taught(good.where(good.alive == 1), draws=1)
