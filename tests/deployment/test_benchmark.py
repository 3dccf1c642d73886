"""The real-world table: rates by video, heads taught by disjoint people, and what a species left out does."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from prepared_clips import make_prepared

from liveness_utils import bundle as bundles
from liveness_utils import cli, clips, config
from liveness_utils import dataset as ds
from liveness_utils.cues import FRAME_FEATURES
from liveness_utils.deployment import benchmark
from liveness_utils.errors import DatasetError
from liveness_utils.network.encoder import Encoder, save_encoder

SETTINGS = benchmark.Settings(people=(1, 2), draws=4, workers=1)


class Colours(torch.nn.Module):
    """An embedding that knows the mean colour and nothing else."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean(dim=(1, 2))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Red prints, and injections that look like faces."""
    return ds.open_prepared(make_prepared(tmp_path_factory.mktemp("arrays") / "a", n=24, names=FRAME_FEATURES))


def test_a_head_knows_what_it_was_taught_and_not_what_was_left_out(prepared):
    table = benchmark.taught_table(benchmark.frames_of(prepared, Colours()), SETTINGS).set_index(["left_out", "people"])
    assert set(table.index.get_level_values(0)) == {"all", "flat_print", "injection"}
    # Taught by prints alone, injections are not told: their pixels are a living face's.
    assert 0.2 < table.loc[("injection", 2), "auc"] < 0.8
    assert table.loc[("all", 2), "auc"] == pytest.approx(0.75, abs=0.2), "prints are told, injections are not"
    assert (table["auc_low"] <= table["auc"]).all() and (table["auc"] <= table["auc_high"]).all()
    assert (table["draws"] == 4).all()


def test_the_bundle_is_measured_at_the_threshold_it_ships(prepared):
    bundle = bundles.load(config.released_bundle())
    found = benchmark.untouched(prepared, bundle, SETTINGS)
    assert found["pattern"] == "video+landmarks+imu" and found["threshold"] == bundle.threshold(np.ones(3))["value"]
    assert found["videos"] == 24 and 0 <= found["eer"] <= 1 and found["no_decision"] == 1
    assert {"BPCER", "APCER flat_print", "APCER injection"} <= set(found["rates"])
    assert found["rates"]["BPCER"]["n"] == 12


def test_without_people_only_the_bundle_is_measured(prepared):
    nobody = prepared.manifest.assign(subject_id=pd.NA)
    held = ds.Prepared(**{**vars(prepared), "manifest": nobody})
    with pytest.raises(benchmark.MetricError, match="name no person"):
        benchmark.frames_of(held, Colours())


def test_a_folder_that_was_not_imported_is_refused(tmp_path, capsys):
    with pytest.raises(DatasetError, match="liveness import"):
        benchmark.measure(tmp_path, None, None, SETTINGS)
    assert cli.main(["benchmark", str(tmp_path / "none")]) == cli.UNREADABLE
    said = capsys.readouterr()
    assert not said.out and "liveness import" in said.err and len(said.err.strip().splitlines()) == 1


def test_published_figures_say_whose_they_are():
    table = benchmark.published()
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
            rows.append({"file": f"{label}/{n}_{k}.png", "subject": n, "video": f"{n}-{k}", "kind": "flat_print"})
    pd.DataFrame(rows).to_csv(tmp_path / "tree" / "images.csv", index=False)
    assert cli.main(["import", "image-folder", str(tmp_path / "tree"), str(tmp_path / "pictures")]) == 0
    return tmp_path / "pictures"


@pytest.mark.slow
def test_one_command_prints_the_table_and_writes_every_number(imported, tmp_path, capsys):
    torch.manual_seed(0)
    save_encoder(tmp_path / "encoder.pt", Encoder(), {"from": "nothing"})
    command = ["benchmark", str(imported), "--encoder", str(tmp_path / "encoder.pt"), "--people", "1", "2", "--draws", "3",
               "--work", str(tmp_path / "work"), "--json", str(tmp_path / "all.json"), "--figures", str(tmp_path / "figures"),
               "--workers", "1"]  # fmt: skip
    capsys.readouterr()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert (
        "pictures: 18 videos of 9 people" in said
        and "taught by 2, every species taught" in said
        and "Silent-Face" in said
    )
    found = json.loads((tmp_path / "all.json").read_text())["pictures"]
    assert found["untouched"]["videos"] == 18 and len(found["taught"]) == 2
    head, _, row = benchmark.markdown({"pictures": found}).splitlines()
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
    row = {"people": 2, "left_out": "all", "eer": 0.1, "eer_low": 0.05, "eer_high": 0.2}
    rows = [row, row | {"left_out": "flat_print", "eer": 0.5}]
    held = {"a": {"untouched": bare, "taught": rows}, "b": {"untouched": bare, "taught": None}}
    head, _, first, second = benchmark.markdown(held).splitlines()
    assert head.endswith("| APCER, worst species | EER, taught by 2 |") and second.endswith(" | – |")
    assert first == (
        "| a | 7, 2 | 0.90 [0.80, 1.00] | 12.5 % | 25 % (1/4) [1, 81] | flat_print: 0 % (0/3) [0, 71] | 10.0 % [5, 20] |"
    )
