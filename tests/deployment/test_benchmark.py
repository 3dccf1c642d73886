"""The real-world table: rates by video, heads taught by disjoint people, and what a species left out does."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from prepared_clips import make_prepared

from liveness_utils import bundle as bundles
from liveness_utils import cli, clips, config
from liveness_utils import dataset as ds
from liveness_utils.cues import FRAME_FEATURES
from liveness_utils.deployment import benchmark, benchmark_report
from liveness_utils.errors import DatasetError

SETTINGS = benchmark.Settings(people=(1, 2), clips=(4,), draws=4, workers=1)


GENERAL = {"level": [0.5] * 3, "spread": [0.2] * 3, "weight": [0.0] * 3, "bias": 0.0, "bound": 4.0, "mask_weight": [0.0] * 3,
           "mask_bias": 0.0}  # fmt: skip


def colours(prepared) -> np.ndarray:
    """An embedding that knows the mean colour and nothing else, (n, 3)."""
    return np.asarray(prepared.crops, np.float64).mean(axis=(1, 2, 3)) / 255


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Red prints, and injections that look like faces."""
    return ds.open_prepared(make_prepared(tmp_path_factory.mktemp("arrays") / "a", n=24, names=FRAME_FEATURES))


def test_a_camera_knows_what_it_was_taught_and_not_what_was_left_out(prepared):
    table = benchmark.taught_table(benchmark.frames_of(prepared, colours(prepared)), GENERAL, SETTINGS)
    assert set(table["camera"]) == {"all"}, "the data names one place"
    assert set(table["left_out"]) == {"all", "every attack", "flat_print", "injection"} and set(table["clips"]) == {
        0,
        4,
    }
    whole = table[table["clips"] == 0].set_index(["left_out", "people"])
    # Taught by prints alone, injections are not told: their pixels are a living face's.
    assert 0.2 < whole.loc[("injection", 2), "auc"] < 0.8
    assert whole.loc[("all", 2), "auc"] == pytest.approx(0.75, abs=0.2), "prints are told, injections are not"
    assert whole.loc[("every attack", 2), "auc"] == pytest.approx(0.5), "the general head here knows nothing"
    assert whole.loc[("all", 2), "worst"] == "injection"
    assert (table["auc_low"] <= table["auc"]).all() and (table["auc"] <= table["auc_high"]).all()
    assert table[["bpcer", "apcer", "apcer_worst"]].stack().between(0, 1).all() and (table["draws"] == 4).all()


def test_another_light_than_the_taught_one_is_announced(prepared):
    night = np.arange(len(prepared)) % 2 == 1
    held = ds.Prepared(
        **{**vars(prepared), "manifest": prepared.manifest.assign(light=np.where(night, "night", "day"))}
    )
    frames = benchmark.frames_of(held, colours(prepared))
    assert set(frames.group) == {"day", "night"}
    frames.statistics[night] += 50.0
    bundle = replace(bundles.load(config.released_bundle()), picture_head=GENERAL)
    away = benchmark.elsewhere(frames, bundle, SETTINGS).set_index("people")
    assert away.index.tolist() == [2] and away.loc[2, "announced"] == 1.0 and away.loc[2, "accepted_attacks"] == 0.0
    assert away.loc[2, "announced_there"] < 1.0
    table = benchmark.taught_table(frames, GENERAL, SETTINGS)
    assert set(table["camera"]) == {"all", "each camera"}


def test_the_bundle_is_measured_at_the_threshold_it_ships(prepared):
    bundle = bundles.load(config.released_bundle())
    outputs = benchmark.model_outputs(prepared, bundle, SETTINGS)
    assert outputs["embedding"].shape == (24, 432)
    found = benchmark.untouched(prepared, outputs, bundle, SETTINGS)
    assert found["pattern"] == "video+landmarks+imu" and found["threshold"] == bundle.threshold(np.ones(3))["value"]
    assert found["videos"] == 24 and 0 <= found["eer"] <= 1 and found["no_decision"] == 1
    assert {"BPCER", "APCER flat_print", "APCER injection"} <= set(found["rates"])
    assert found["rates"]["BPCER"]["n"] == 12
    again = benchmark.model_outputs(prepared, bundle, SETTINGS)
    assert all(np.array_equal(again[name], outputs[name]) for name in outputs), "kept beside the arrays"


def test_without_people_only_the_bundle_is_measured(prepared):
    nobody = prepared.manifest.assign(subject_id=pd.NA)
    held = ds.Prepared(**{**vars(prepared), "manifest": nobody})
    with pytest.raises(benchmark.MetricError, match="name no person"):
        benchmark.frames_of(held, colours(prepared))


def test_a_folder_that_was_not_imported_is_refused(tmp_path, capsys):
    with pytest.raises(DatasetError, match="liveness import"):
        benchmark.measure(tmp_path, None, SETTINGS)
    assert cli.main(["benchmark", str(tmp_path / "none")]) == cli.UNREADABLE
    said = capsys.readouterr()
    assert not said.out and "liveness import" in said.err and len(said.err.strip().splitlines()) == 1


def test_published_figures_say_whose_they_are():
    table = benchmark_report.published()
    assert len(table) >= 8 and table[["detector", "data", "unit", "eer_percent", "source"]].notna().all(axis=None)
    assert table["eer_percent"].between(0, 100).all() and table["auc"].dropna().between(0, 1).all()


@pytest.fixture
def imported(tmp_path):
    """Two frames of each sample clip (simulated), of nine pretended people, as somebody's folder of pictures."""
    rows = []
    for n, row in enumerate(clips.read_manifest(config.samples_dir()).to_dict("records")):
        clip = clips.load_clip(config.samples_dir(), row["clip_id"], row=row)
        for k, part in enumerate((10, 40)):
            label = "real" if (n + k) % 2 else "fake"
            (tmp_path / "tree" / label).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "tree" / label / f"{n}_{k}.png"), clip.frames[part][..., ::-1])
            name = f"{label}/{n}_{k}.png"
            rows.append({"file": name, "subject": n, "video": f"{n}-{k}", "kind": "flat_print", "camera": "ab"[n > 4]})
    pd.DataFrame(rows).to_csv(tmp_path / "tree" / "images.csv", index=False)
    assert cli.main(["import", "image-folder", str(tmp_path / "tree"), str(tmp_path / "pictures")]) == 0
    return tmp_path / "pictures"


@pytest.mark.slow
def test_one_command_prints_the_table_and_writes_every_number(imported, tmp_path, capsys):
    command = ["benchmark", str(imported), "--people", "1", "2", "--clips", "2", "--draws", "3", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "all.json"), "--figures", str(tmp_path / "figures"),
               "--workers", "1"]  # fmt: skip
    capsys.readouterr()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert (
        "pictures: 18 videos of 9 people" in said
        and "taught each camera, by 2, every species taught" in said
        and "Silent-Face" in said
    )
    found = json.loads((tmp_path / "all.json").read_text())["pictures"]
    assert found["untouched"]["videos"] == 18 and {row["camera"] for row in found["taught"]} == {"all", "each camera"}
    assert "announced as not taught" in said and [row["people"] for row in found["elsewhere"]] == [2]
    head, _, row = benchmark_report.markdown({"pictures": found}).splitlines()
    assert head.count("|") == row.count("|") and "EER, taught by 2" in head
    assert row.startswith("| pictures | 18, 9 | ") and "flat_print: " in row
    table = pd.read_csv(tmp_path / "figures" / "benchmark.csv")
    assert set(table["people"]) == {0, 1, 2} and {"benchmark.png", "benchmark.pdf"} <= {p.name for p in (tmp_path / "figures").iterdir()}  # fmt: skip


def test_a_card_has_a_row_a_data_set_and_a_dash_where_nobody_could_teach():
    rates = {
        "BPCER": {"k": 1, "n": 4},
        "APCER flat_print": {"k": 0, "n": 3},
        "APCER worst (flat_print)": {"k": 0, "n": 3},
    }
    area = {"value": 0.9, "low": 0.8, "high": 1.0, "bona_fide": 4, "attacks": 3, "people": 2}
    bare = {"videos": 7, "auc": area, "eer": 0.125, "rates": rates}
    row = {"camera": "all", "people": 2, "clips": 0, "left_out": "all", "eer": 0.1, "eer_low": 0.05, "eer_high": 0.2,
           "bpcer": 0.125, "apcer": 0.0}  # fmt: skip
    rows = [row, row | {"left_out": "flat_print", "eer": 0.5}, row | {"clips": 2, "eer": 0.6}]
    held = {"a": {"untouched": bare, "taught": rows}, "b": {"untouched": bare, "taught": None}}
    head, _, first, second = benchmark_report.markdown(held).splitlines()
    assert head.endswith(
        "| APCER, worst species | EER, taught by 2 (BPCER, APCER at its threshold) |"
    ) and second.endswith(" | – |")
    assert first == (
        "| a | 7, 2 | 0.90 [0.80, 1.00] | 12.5 % | 25 % (1/4) [1, 81] | flat_print: 0 % (0/3) [0, 71] | 10.0 % [5, 20] (12.5, 0.0) |"
    )
