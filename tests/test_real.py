"""What notebook 09 measures: intervals over people, traps, and verdicts on single pictures."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from liveness_utils import (
    adapters,
    bundle,
    clips,
    config,
    dataset,
    export,
    inputs,
    metrics,
    real,
    runtime,
)
from liveness_utils.errors import DatasetError, MetricError
from liveness_utils.network import scoring
from liveness_utils.network.fusion import load_checkpoint
from liveness_utils.network.training import TrainConfig
from studies import own_data


def test_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    score, label = rng.normal(size=60).round(1), rng.integers(0, 2, 60)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[label == 1] for b in score[label == 0]]
    assert real.area(score, label) == pytest.approx(np.mean(pairs))


def scored(people: int = 12, per: int = 4, gap: float = 1.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    who, label = np.repeat(np.arange(people), per), np.tile(np.arange(per) % 2, people)
    logit = gap * label + rng.normal(size=people)[who] + 0.1 * rng.normal(size=len(who))
    return pd.DataFrame({"clip_id": [f"c{k}" for k in range(len(who))], "subject_id": [f"p{w}" for w in who], "is_bonafide": label,
                         "pai_species": np.where(label == 1, "bona_fide", "flat_print"), "logit": logit, "score": 1 / (1 + np.exp(-logit))})  # fmt: skip


def test_an_interval_over_people_is_wider_than_one_over_their_many_clips():
    table = scored(people=8, per=40)
    over_people, over_clips = real.auc(table, "logit"), real.auc(table.assign(subject_id=None), "logit")
    assert over_people.low < over_people.value < over_people.high
    assert over_people.high - over_people.low > 1.5 * (over_clips.high - over_clips.low)
    assert over_people.people == 8 and over_clips.people == 320


def test_an_area_of_one_keeps_a_width():
    table = scored(people=5, per=2, gap=50.0)
    found = real.auc(table, "logit")
    assert found.value == 1.0 and found.low < 0.8 and found.high == 1.0
    with pytest.raises(MetricError, match="one class"):
        real.auc(table[table.is_bonafide == 1])


def test_stills_of_a_video_are_one_vote_and_unjudged_ones_have_none():
    table = scored(people=2, per=3).assign(video_id=["a", "a", "a", "b", "b", "b"])
    table.loc[[0, 3, 4, 5], "score"] = np.nan
    found = real.by_video(table).set_index("video_id")
    assert found.loc["a", "logit"] == pytest.approx(table["logit"][1:3].mean())
    assert np.isnan(found.loc["b", "score"]) and found["stills"].tolist() == [3, 3]
    assert not real.judged(found.reset_index(), 0.0)["accepted"][1]


def test_margins_make_thresholds_comparable():
    held = real.judged(scored(), 0.9)
    assert ((held["margin"] >= 0) == held["accepted"]).all()
    rates = real.errors(held)
    assert rates["BPCER"].n == 24 and rates["APCER flat_print"].k == int(held[held.is_bonafide == 0]["accepted"].sum())
    assert real.short(metrics.Rate(0, 20)) == "0 % (0/20) [0, 17]"


@pytest.mark.slow
def test_traps_find_what_colour_gives_away_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    table = scored(people=20, per=4)
    tinted = [
        np.clip(rng.integers(0, 200, (32, 32, 3)) + 40 * y, 0, 255).astype(np.uint8) for y in table["is_bonafide"]
    ]
    noise = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(len(table))]
    found = own_data.traps({"tinted": tinted, "noise": noise}, table).set_index(["picture", "feature", "split by"])[
        "value"
    ]
    assert found["tinted", "colour", "people"] > 0.95
    assert 0.25 < found["noise", "colour", "people"] < 0.75


def test_some_of_takes_every_species_before_a_second_of_any():
    rows = [{"clip_id": f"{p}-{s}-{v}-{k}", "subject_id": f"p{p}", "video_id": f"{p}-{s}-{v}", "is_bonafide": s == "real",
             "pai_species": None if s == "real" else s} for p in range(6) for s in ("real", "a", "b", "c") for v in range(3) for k in range(4)]  # fmt: skip
    found = own_data.some_of(pd.DataFrame(rows), people=4, videos=3, stills=2)
    assert found["subject_id"].nunique() == 4 and found.groupby("video_id").size().eq(2).all()
    by_species = found.drop_duplicates("video_id").groupby("subject_id")["pai_species"].nunique()
    assert by_species.eq(3).all()


# --------------------------------------------------------------------------- pictures, end to end
@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Frames of the sample clips (simulated) as a folder of pictures, of pretended people."""
    root = tmp_path_factory.mktemp("tree")
    rows = []
    for n, row in enumerate(clips.read_manifest(config.samples_dir()).to_dict("records")):
        clip = clips.load_clip(config.samples_dir(), row["clip_id"], row=row)
        for k, part in enumerate((10, 40)):
            label = "real" if row["is_bonafide"] or n == 1 else "fake"
            (root / label).mkdir(exist_ok=True)
            cv2.imwrite(str(root / label / f"{n}_{k}.png"), clip.frames[part][..., ::-1])
            rows.append({"file": f"{label}/{n}_{k}.png", "subject": n // 2, "video": n, "kind": row["pai_species"]})
    pd.DataFrame(rows).to_csv(root / "images.csv", index=False)
    return root


@pytest.fixture(scope="module")
def features(tree, tmp_path_factory):
    root = tmp_path_factory.mktemp("features")
    adapters.import_layout(adapters.layout("image-folder"), tree, root / "clips", progress=False)
    return dataset.prepare(root / "clips", root / "arrays", workers=1, progress=False)


@pytest.mark.slow
def test_faces_of_stills_are_found_and_scored(features):
    held = dataset.open_prepared(features)
    assert held.stills and (held.quality["reasons"] == "").mean() > 0.8
    table = scoring.score(config.released_bundle() / "checkpoint.pt", held, rows=np.arange(len(held)))
    shown = scoring.predict_rows(
        load_checkpoint(config.released_bundle() / "checkpoint.pt")[0],
        dataset.open_prepared(features),
        np.arange(2),
    )
    assert shown["depth"].shape == (2, 25, 14, 14) and np.allclose(shown["logit"], table["logit"][:2], atol=1e-5)


def test_a_stills_views_are_itself_and_its_mirror_image(features):
    held = dataset.open_prepared(features)
    crop = held.crops[0, 0]
    views = inputs.still_views(crop)
    assert views.shape == (25, 112, 112, 3) and len(np.unique(views.reshape(25, -1), axis=0)) == 2
    assert np.array_equal(views[0], crop) and np.array_equal(views[1], crop[:, ::-1])
    dot = np.zeros((21, 21), np.float32)
    dot[10, 10] = 1.0
    assert np.array_equal(inputs.moved(dot, 1.0, np.zeros(2)), dot)
    assert inputs.moved(dot, 1.0, np.array([3, 0]) / 21).argmax() == dot.argmax() + 3  # to the right


def test_a_picture_is_refused_by_a_bundle_of_video_and_judged_by_one_of_stills(tree, features, tmp_path, monkeypatch):
    folder = tmp_path / "stills"
    shutil.copytree(config.released_bundle(), folder, ignore=shutil.ignore_patterns("variants"))
    made = export.rewrite(bundle.load(folder), quality=vars(inputs.STILL_LIMITS))
    held = dataset.open_prepared(features)
    row = int(np.flatnonzero(held.quality["reasons"] == "")[0])
    path = tree / held.manifest["source_file"][row]
    picture = clips.load_recording(path)
    refused = runtime.predict_clip(picture, config.released_bundle())
    assert refused.decision == "no_decision" and "single picture" in refused.reasons[0]
    looks, views = [], inputs.still_views
    monkeypatch.setattr(inputs, "still_views", lambda crop: looks.append(views(crop)) or looks[-1])
    verdict = runtime.predict_clip(picture, made)
    assert len(looks) == 1 and np.array_equal(looks[0][0], held.crops[row, 0])
    told = scoring.score(config.released_bundle() / "checkpoint.pt", held, rows=np.array([row]))["score"][0]
    assert verdict.decision in ("bona_fide", "not_sure", "attack") and verdict.score == pytest.approx(told, abs=0.02)
    blank = clips.Clip("x", np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1))
    assert runtime.predict_clip(blank, made).decision == "no_decision"


def test_scores_of_a_run_are_what_evaluate_reads(features, tmp_path):
    cut = {c: ("dev", "test")[k % 2] for k, c in enumerate(dataset.open_prepared(features).manifest["clip_id"])}
    fold = dataset.resplit(features, tmp_path / "fold", cut)
    written = scoring.write_scores(config.released_bundle() / "checkpoint.pt", fold, tmp_path)
    assert [p.name for p in written] == ["scores_dev.csv", "scores_test.csv"]
    assert set(metrics.load_scores(written[1])["is_bonafide"]) <= {0, 1}


@pytest.mark.slow
def test_folds_of_stills_train_and_judge_everybody_once(features, tmp_path):
    def settings(fold, out):
        return TrainConfig(fold, out, picture_epochs=1, views=1, epochs=1, modalities=("video",))

    held = dataset.open_prepared(features)
    # Both classes in every fold: these nine pretended people are too few to have them by themselves.
    mixed = held.manifest.assign(is_bonafide=np.arange(len(held)) % 2 == 0, video_id=None)
    mixed.to_parquet(held.folder / "manifest.parquet", index=False)
    scores, checkpoints = own_data.cross_validate(held.folder, tmp_path, settings, k=4)
    assert sorted(scores["clip_id"]) == sorted(held.manifest["clip_id"]) and len(checkpoints) == 4
    assert {"fold", "threshold", "margin", "accepted"} <= set(scores)


def test_the_stand_in_is_laid_out_as_pictures_of_somebody(tmp_path):
    with pytest.raises(DatasetError, match="notebook 01"):
        own_data.simulated_tree(tmp_path / "none", tmp_path / "tree")
    made = own_data.simulated_tree(config.samples_dir(), tmp_path / "tree", frames=1)
    found = adapters.layout("image-folder").find(made, "", adapters.Options())
    kinds = {p.pai_species for p in found if not p.is_bonafide}
    assert len(found) == 8 and "injection" not in kinds and all(p.subject_id and p.video for p in found)
