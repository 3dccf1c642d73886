"""Less evidence never helps: nothing that is done to an attack's motion record or frames makes its rejection an acceptance."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import numpy as np
import pytest

from liveness_utils import clips, config

ROOT = config.samples_dir()
NAMES = clips.read_manifest(ROOT).fillna({"pai_species": "bona_fide"}).set_index("pai_species")["clip_id"]
ATTACKS = [species for species in NAMES.index if species != "bona_fide"]
DRAWS = 6


@pytest.fixture(scope="module")
def evidence():
    """The benchmark, which does the same over hundreds of generated clips."""
    spec = importlib.util.spec_from_file_location("evidence", config.repo_root() / "benchmarks" / "evidence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judge(evidence):
    with pytest.MonkeyPatch.context() as patch:
        yield evidence.Judge(patch.setattr)


def sample(species: str) -> clips.Clip:
    return clips.load_clip(ROOT, NAMES[species])


@pytest.mark.parametrize("species", ATTACKS)
def test_no_change_of_its_evidence_lets_an_attack_pass(evidence, judge, species):
    judge.forget()
    clip = sample(species)
    assert judge(clip).decision in ("attack", "not_sure")
    for seed in range(DRAWS):
        for name, changed in evidence.cases(clip, 1, seed):
            found = judge(changed)
            assert found.decision != "bona_fide", (name, seed, found.sentence)
            assert found.decision in ("attack", "not_sure") or all(found.reasons), (name, seed)


def test_what_is_remembered_changes_no_verdict(judge):
    judge.forget()
    clip = sample("injection")
    assert judge(clip).score == judge(clip).score and judge(clip).decision == "attack"


def test_the_living_sample_passes_and_its_units_are_noted(judge, tmp_path):
    judge.forget()
    clip = sample("bona_fide")
    assert judge(clip).decision == "bona_fide"
    table = clips._imu_table(replace(clip.imu, t=1e3 * clip.imu.t, accel=clip.imu.accel / np.float32(9.80665)))
    table.to_csv(tmp_path / "other_units.csv", index=False)
    found = judge(replace(clip, imu=clips.read_imu(tmp_path / "other_units.csv")))
    assert found.decision == "bona_fide"
    assert [note.split(": ")[1] for note in found.notes] == [
        "times read as milliseconds", "specific force read as units of g",
    ]  # fmt: skip


def test_a_record_by_another_clock_is_named_with_its_time(evidence, judge):
    judge.forget()
    clip = sample("bona_fide")
    found = judge(replace(clip, imu=evidence.moved(clip.imu, 0.5)))
    assert found.decision == "no_decision"
    assert re.search(r"out of step with the video, 0\.(49|50|51) s late; subtract", found.sentence), found.sentence
    assert judge(replace(clip, imu=evidence.moved(clip.imu, 0.0))).decision == "bona_fide"


def test_a_record_of_minutes_is_judged_by_the_part_that_counts(judge):
    judge.forget()
    clip = sample("bona_fide")
    before, after = np.arange(-60, clip.imu.t[0] - 0.005, 0.01), np.arange(3.0, 60, 0.01)
    accel, gyro = (
        np.concatenate([v[:1].repeat(len(before), 0), v, v[-1:].repeat(len(after), 0)])
        for v in (clip.imu.accel, clip.imu.gyro)
    )
    long = clips.Imu(np.concatenate([before, clip.imu.t, after]), accel, gyro)
    assert judge(replace(clip, imu=long)).score == pytest.approx(judge(clip).score, abs=1e-3)


def test_a_little_noise_makes_no_forged_record_pass(judge):
    judge.forget()
    clip = sample("injection")
    noise = np.random.default_rng(0).normal(0, 0.1, clip.imu.accel.shape).astype(np.float32)
    assert judge(replace(clip, imu=replace(clip.imu, accel=clip.imu.accel + noise))).decision != "bona_fide"


@pytest.mark.parametrize("species", NAMES.index)
def test_a_shorter_cut_changes_no_verdict(evidence, judge, species):
    judge.forget()
    clip, wanted = sample(species), "bona_fide" if species == "bona_fide" else "attack"
    for seconds in (1.22, 1.82):
        for kept in (clip.t <= seconds, clip.t >= clip.t[-1] - seconds):
            found = judge(evidence.keep_frames(clip, kept)).decision
            assert found == wanted or {found, wanted} == {"attack", "not_sure"}, seconds
