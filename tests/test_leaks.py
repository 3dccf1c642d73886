"""Leak hunt: a planted leak is found, noise is not one, and what was expected beforehand is no alarm."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from liveness_utils import clips, config
from liveness_utils.instruments import ATTACKS, PRINTS, SPECIES
from studies import leaks

SHARES = {"train": 24, "dev": 12, "test": 24}


@pytest.fixture(scope="module")
def manifest():
    rows = [
        {"split": split, "pai_species": None if species == "bona_fide" else species}
        for split, share in SHARES.items()
        for species in SPECIES
        for _ in range(share * (3 if species == "bona_fide" else 1))
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True)
    return table.assign(is_bonafide=table.pai_species.isna())


def noise(manifest, columns=2):
    return np.random.default_rng(1).normal(size=(len(manifest), columns))


def test_planted_leak_is_found_in_every_species(manifest):
    planted = manifest.is_bonafide.to_numpy(float)[:, None] + 0.01 * noise(manifest)
    table = leaks.leak_table({"clip_order": planted}, manifest)
    assert table.species.tolist() == list(ATTACKS)
    assert table.leak.all() and (table.auc > 0.99).all() and (table.again > 0.99).all()


def test_a_second_look_is_on_the_people_of_dev(manifest):
    planted = manifest.is_bonafide.to_numpy(float)[:, None] * (manifest.split != "dev").to_numpy(float)[:, None]
    table = leaks.leak_table({"clip_order": planted + 0.01 * noise(manifest)}, manifest)
    assert (table.auc > 0.99).all() and ((table.again - 0.5).abs() < 0.25).all()
    without = manifest.assign(split=manifest.split.where(manifest.split != "dev", "validation"))
    assert leaks.leak_table({"clip_order": planted}, without).again.isna().all()


def test_leak_planted_in_one_species_is_named_there(manifest):
    planted = noise(manifest)
    planted[(manifest.pai_species == "rigid_mask").to_numpy(), 0] += 6.0
    table = leaks.leak_table({"frame_timing": planted}, manifest).set_index("species")
    assert table.index[table.leak].tolist() == ["rigid_mask"]


def test_noise_is_no_leak(manifest):
    table = leaks.leak_table({"clip_order": noise(manifest)}, manifest)
    assert not table.leak.any()
    assert np.allclose(table.excess, (table.auc - 0.5).abs())


def test_what_a_real_attack_gives_away_is_no_alarm(manifest):
    planted = manifest.is_bonafide.to_numpy(float)[:, None] + 0.01 * noise(manifest)
    table = leaks.leak_table({"border": planted}, manifest).set_index("species")
    assert table.expected[list(PRINTS)].all() and not table.leak[list(PRINTS)].any()
    assert table.leak["injection"] and not table.expected["injection"]


def test_every_clue_has_its_expectation_and_a_reason():
    assert set(leaks.CLUES) == set(leaks.EXPECTED)
    for species, why in leaks.EXPECTED.values():
        assert species <= set(ATTACKS) and bool(species) == bool(why)


def test_standard_error_matches_the_null():
    """Without any effect the AUC of n against m has the Mann-Whitney variance (n + m + 1) / (12 n m)."""
    assert leaks.hanley_mcneil(0.5, 40, 30) == pytest.approx(np.sqrt(71 / (12 * 40 * 30)), rel=0.02)


def test_chance_level_holds_over_the_whole_table(manifest):
    cells = len(leaks.CLUES) * len(ATTACKS)
    assert norm.sf(norm.isf(0.025 / cells)) * 2 * cells == pytest.approx(0.05)


def test_clues_of_stored_clips():
    root = config.samples_dir()
    rows = clips.read_manifest(root).head(2)
    found = leaks.trivial_features(root, rows)
    assert set(found) == set(leaks.CLUES)
    assert all(len(v) == 2 and np.isfinite(v).all() for v in found.values())
    assert found["clip_order"][:, 0].tolist() == [0.0, 0.5]
