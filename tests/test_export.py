"""Conversion keeps the numbers, and a bundle that is not whole is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from small_bundle import small_bundle

from liveness_utils import bundle as bundles
from liveness_utils import config, export, metrics
from liveness_utils import dataset as ds
from liveness_utils.errors import BundleError
from liveness_utils.network import scoring
from liveness_utils.network.fusion import load_checkpoint
from studies import conversion

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made():
    return small_bundle()


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "bundle")


def test_float32_and_onnx_equal_torch(made):
    variants = bundles.load(made[1]).variants
    assert variants["float32"]["max_logit"] < 1e-4
    assert variants["onnx"]["max_logit"] < 1e-4
    assert variants["float32"]["max_depth"] < 1e-3


def test_the_onnx_file_holds_the_network_and_nothing_of_the_machine_that_made_it(made):
    path = made[1] / "model.onnx"
    held = onnx.load(path)
    assert not any(node.metadata_props or node.doc_string for node in held.graph.node)
    assert str(config.repo_root()).encode() not in path.read_bytes()
    weights = [w.raw_data for w in held.graph.initializer if len(w.raw_data) > 1024]
    assert len(weights) == len(set(weights)) > 20


def test_the_onnx_file_that_ships_is_half_as_large_and_nearly_the_same(made):
    variants = bundles.load(made[1]).variants
    half, whole = variants["onnx_float16"], variants["onnx"]
    assert (made[1] / "model.onnx").read_bytes() == (made[1] / "variants" / half["file"]).read_bytes()
    assert half["megabytes"] < 0.6 * whole["megabytes"]
    assert 0 < half["max_logit"] < 0.01 and half["correlation"] > 0.9999
    stored = {w.data_type for w in onnx.load(made[1] / "model.onnx").graph.initializer if np.prod(w.dims) > 1000}
    assert onnx.TensorProto.FLOAT not in stored


def test_the_committed_bundle_names_no_path_of_the_machine_that_made_it():
    for path in sorted(config.default_bundle().iterdir()):
        held = path.read_bytes()
        assert b"site-packages" not in held and b"/liveness_utils/" not in held, path.name


def test_only_builtin_operators(made):
    for row in bundles.load(made[1]).variants.values():
        assert not row.get("custom")
    assert "CONV_2D" in export.operators(made[1] / "step.tflite")[0]


def test_the_shipped_model_is_small(made):
    for folder in (made[1], config.released_bundle()):
        assert (folder / "model.tflite").stat().st_size < 2e6
        assert (folder / "step.tflite").stat().st_size < 2e6
        assert (folder / "model.onnx").stat().st_size < 4e6


def test_streaming_equals_the_clip_model(made):
    prepared, folder, checkpoint = made
    net, _ = load_checkpoint(checkpoint)
    sample = next(export.clip_samples(ds.open_prepared(prepared), np.array([0]), net.features.mean.numpy()))
    for variant in ("float32", export.STEP_VARIANT):
        clip = bundles.open_model(folder / "variants" / f"clip_{variant}.tflite")(**sample)
        step = bundles.run_steps(bundles.open_model(folder / "variants" / f"step_{variant}.tflite"), **sample)
        for name in ("logit", "consistency", "species"):
            np.testing.assert_allclose(step[name], clip[name], atol=1e-4)
    shipped = folder / "variants" / f"step_{export.STEP_VARIANT}.tflite"
    assert (folder / "step.tflite").read_bytes() == shipped.read_bytes()
    assert shipped.stat().st_size < 2e6


def test_converted_scores_equal_torch_scores(made):
    prepared, folder, checkpoint = made
    data = ds.open_prepared(prepared)
    fill = bundles.load(folder).feature_fill
    theirs = export.score_file(folder / "variants" / "clip_float32.tflite", data, fill, split="dev")
    ours = scoring.score(checkpoint, data, split="dev")
    np.testing.assert_allclose(theirs["logit"], ours["logit"], atol=1e-4)
    assert list(theirs["clip_id"]) == list(ours["clip_id"])


def test_the_lean_network_gives_the_same_outputs(made):
    prepared, _, checkpoint = made
    net, _ = load_checkpoint(checkpoint)
    sample = next(export.clip_samples(ds.open_prepared(prepared), np.array([0]), net.features.mean.numpy()))
    tensors = {k: torch.from_numpy(v) for k, v in sample.items()}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.inference_mode():
        lean, plain = export.lean(net)(**tensors), net(**tensors)
    for name in ("logit", "species", "consistency", "depth"):
        torch.testing.assert_close(lean[name], plain[name], atol=1e-5, rtol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_no_operator_runs_along_the_three_colours(made):
    from ai_edge_litert.interpreter import Interpreter

    for name in ("clip_float32", "step_float32"):
        found = Interpreter(str(made[1] / "variants" / f"{name}.tflite"))._get_ops_details()
        assert sum(op["op_name"] == "SUB" for op in found) > 0
        model = Interpreter(str(made[1] / "variants" / f"{name}.tflite"))
        shape = {d["index"]: tuple(d["shape"]) for d in model.get_tensor_details()}
        pixelwise = [
            op
            for op in found
            if op["op_name"] in ("SUB", "MUL", "DIV") and shape[op["outputs"][0]][-3:] == (112, 112, 3)
        ]
        assert not pixelwise


def test_weights_of_eight_bits_compute_in_float(made):
    row = bundles.load(made[1]).variants["weight_only"]
    assert row["megabytes"] < 2 and row["operators"]["DEQUANTIZE"] > 20
    assert row["mean_logit"] < bundles.load(made[1]).variants["int8"]["mean_logit"] + 1e-2
    rounded = [c for c in conversion.constants(made[1] / "variants" / row["file"]) if c.stored.dtype == np.int8]
    assert sum(c.stored.size for c in rounded) > 7e5


def test_calibration_uses_training_clips_of_every_species(made):
    data = ds.open_prepared(made[0])
    rows = export.calibration_rows(data, 6)
    assert set(data.manifest["split"].iloc[rows]) == {"train"}
    assert set(data.species[rows]) == set(data.species[data.rows("train")])


def test_a_quantised_file_names_inputs_outputs_and_weights_and_nothing_else(made):
    from ai_edge_litert import schema_py_generated as schema

    content = (made[1] / "variants" / "clip_weight_only.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    ends = {*graph.inputs, *graph.outputs}
    named = [bool(t.name) for t in graph.tensors]
    stored = [len(export.stored_bytes(model.buffers[t.buffer], content)) > 0 for t in graph.tensors]
    assert named == [kept or k in ends for k, kept in enumerate(stored)] and 0 < sum(named) < len(named)


def test_integer_model_takes_and_gives_floats(made):
    model = bundles.open_model(made[1] / "variants" / "clip_int8.tflite")
    data = ds.open_prepared(made[0])
    fill = bundles.load(made[1]).feature_fill
    out = model(**next(export.clip_samples(data, np.array([1]), fill)))
    assert all(v.dtype == np.float32 for v in out.values())


def test_selftest_passes_and_notices(copy):
    found = bundles.selftest(copy)
    assert found["clip"] < 1e-3 and found["step"] < 1e-3
    held = dict(np.load(copy / "selftest.npz"))
    held["clip_logit"] = held["clip_logit"] + 1
    np.savez_compressed(copy / "selftest.npz", **held)
    bundles.save(bundles.Bundle(**{**vars(bundles.Bundle(copy, **_content(copy)))}))
    with pytest.raises(BundleError, match="self-test"):
        bundles.selftest(copy)


def _content(folder) -> dict:
    return json.loads((folder / "bundle.json").read_text())


def test_a_changed_file_is_refused(copy):
    with open(copy / "model.tflite", "r+b") as file:
        file.seek(5000)
        file.write(b"\x13")
    with pytest.raises(BundleError, match=r"model\.tflite.*SHA-256"):
        bundles.load(copy)


def test_a_missing_file_is_refused(copy):
    (copy / "step.tflite").unlink()
    with pytest.raises(BundleError, match=r"step\.tflite.*missing"):
        bundles.load(copy)


@pytest.mark.parametrize("change", [{"format": 99}, {"format": 1}, {"format": None}])
def test_another_version_is_refused(copy, change):
    (copy / "bundle.json").write_text(json.dumps(_content(copy) | change))
    with pytest.raises(BundleError, match="format"):
        bundles.load(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_a_corrupt_manifest_is_refused(copy, text):
    (copy / "bundle.json").write_text(text)
    with pytest.raises(BundleError):
        bundles.load(copy)


def test_no_bundle_is_said(tmp_path):
    with pytest.raises(BundleError, match="there is no bundle"):
        bundles.load(tmp_path)


def test_show_names_threshold_with_its_error(made):
    text = bundles.show(bundles.load(made[1]))
    assert "apcer5 video+landmarks+imu: score ≥" in text and "(dev: APCER" in text


def test_without_imu_injections_do_not_set_the_threshold(made):
    thresholds = bundles.load(made[1]).thresholds["apcer5"]
    assert thresholds["video"]["without"] == ["injection"]
    assert thresholds["video+landmarks+imu"]["without"] == []


def dev_table(bona_fide, **attacks):
    """Scores by species as a table."""
    rows = [(v, True, None) for v in bona_fide] + [(v, False, name) for name, part in attacks.items() for v in part]
    return pd.DataFrame(rows, columns=["score", "is_bonafide", "pai_species"])


def test_less_evidence_never_accepts_a_species_more_often():
    many = np.linspace(0.0, 0.2, 20)
    people = np.linspace(0.5, 1.0, 20)
    tables = {
        "video+landmarks+imu": dev_table(people, mask=[*many, 0.6], print=many, injection=many),
        "video+landmarks": dev_table(people, mask=[*many, 0.61], print=[*many, 0.81], injection=people),
        "video+imu": dev_table(people, mask=[*many, 0.55, np.nan], print=many, injection=[*many, 0.9]),
        "video": dev_table(people, mask=many, print=many, injection=people),
    }
    chosen = export.thresholds_of(tables, targets=(0.05, 0.01))
    whole = chosen[bundles.FLOOR]["video+landmarks+imu"]
    for pattern, floor in chosen.pop(bundles.FLOOR).items():  # below it lies one living face of twenty
        table = tables[pattern]
        assert floor["bpcer"]["k"] == (table["score"][table["is_bonafide"] == 1] < floor["value"]).sum()
        assert floor["value"] >= whole["value"] and (
            floor["bpcer"]["value"] <= export.ASKED or floor["value"] == whole["value"]
        )
    for name, by_pattern in chosen.items():
        apcer = {
            p: metrics.apcer(t.score, t.is_bonafide, by_pattern[p]["value"], t.pai_species) for p, t in tables.items()
        }
        for pattern, rates in apcer.items():
            species = {"mask", "print", "injection"} - set(by_pattern[pattern]["without"])
            assert all(rates[s].value <= apcer["video+landmarks+imu"][s].value for s in species), (name, pattern)
        assert by_pattern["video"]["bpcer"]["k"] == 0, "what is strict enough stays as it was chosen"
        assert by_pattern["video+landmarks"]["value"] > 0.81 and by_pattern["video+imu"]["value"] > 0.9


def test_int8_runs_on_a_phone_at_rest(made):
    model = bundles.open_model(made[1] / "variants" / "clip_int8.tflite")
    still = {name: np.zeros(shape, np.float32) for name, shape in model.input_shapes.items()}
    assert np.isfinite(model(**still | {"presence": np.ones((1, 3), np.float32)})["logit"]).all()


def test_stored_weights_are_the_networks(made):
    variants = made[1] / "variants"
    known = {c.name: c.real for c in conversion.constants(variants / "clip_float32.tflite")}
    rounded = [c for c in conversion.constants(variants / "clip_int8.tflite") if c.stored.dtype == np.int8]
    shared = [c for c in rounded if c.name in known and c.stored.size > 500]
    assert sum(c.stored.size for c in shared) > 5e5
    for c in shared:
        assert (np.abs(c.real - known[c.name]) <= 0.501 * c.step + 1e-9).all()


def test_another_variant_can_be_shipped(made, copy):
    prepared, _, checkpoint = made
    fill = np.asarray(bundles.load(copy).feature_fill, np.float32)
    sample = next(export.clip_samples(ds.open_prepared(prepared), np.array([0]), fill))
    shipped = export.ship(bundles.load(copy), "int8", sample)
    assert shipped.variant == "int8"
    assert bundles.sha256(copy / "model.tflite") == bundles.sha256(copy / "variants" / "clip_int8.tflite")
    assert bundles.selftest(copy)["clip"] == 0
    with pytest.raises(BundleError, match="not exported"):
        export.ship(shipped, "int4", sample)


def test_thresholds_of_a_length_are_chosen_on_so_many_frames(made, monkeypatch):
    asked, score = [], export.score

    def watched(*given, **options):
        asked.append((len(options["modalities"]), options["frames"]))
        return score(*given, **options)

    monkeypatch.setattr(export, "score", watched)
    export.dev_thresholds(made[2], ds.open_prepared(made[0]))
    assert sorted(asked) == sorted((m, n) for m in (1, 2, 2, 3) for n in (25, 19, 13))


def _kinds(made, variant: str) -> list[tuple[str, type]]:
    """Operators of a converted file with the type of their first input."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(made[1] / "variants" / f"clip_{variant}.tflite"))
    kind = {d["index"]: d["dtype"] for d in model.get_tensor_details()}
    return [(op["op_name"], kind[op["inputs"][0]]) for op in model._get_ops_details()]


def test_of_the_whole_integer_model_divisions_and_roots_stay_float(made):
    kinds = _kinds(made, "int8")
    assert {k for name, k in kinds if name in ("DIV", "SQRT")} == {np.float32}
    assert {k for name, k in kinds if name == "CONV_2D"} == {np.int8}


def test_of_the_mixed_model_the_encoder_alone_is_integer(made):
    kinds = _kinds(made, "mixed")
    assert sum(k == np.int8 for name, k in kinds if name == "CONV_2D") > 20
    assert {k for name, k in kinds if name == "FULLY_CONNECTED"} == {np.float32}
