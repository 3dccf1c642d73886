"""Distillation on a few random pictures: it learns, it goes on where it stopped, it says what it was made from."""

import numpy as np
import pytest
import torch

from liveness_utils.errors import ModelError
from liveness_utils.network import distillation as di
from liveness_utils.network import encoder as en
from liveness_utils.network import pieces


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 4, 9, 9, 3), np.uint8)
    return [[np.kron(x, np.ones((16, 16, 1), np.uint8)) for x in group] for group in coarse]


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(1)
    net = en.Encoder("mobilenet_v2")
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain average; what a fresh network starts with leaves maps without contrast
    with torch.no_grad():
        net.train().maps(torch.rand(8, 112, 112, 3))
    return net.eval()


def test_pieces_are_a_function_of_the_seed(sources):
    a, b = (pieces.batch(sources, 40, np.random.default_rng(3)) for _ in range(2))
    assert a.shape == (40, 112, 112, 3) and a.dtype == np.uint8
    assert np.array_equal(a, b)
    assert not np.array_equal(a, pieces.batch(sources, 40, np.random.default_rng(4)))


def test_pictures_of_a_folder_and_their_quarters(tmp_path):
    import cv2

    with pytest.raises(ModelError, match="holds no JPEG"):
        pieces.load_pictures(tmp_path)
    image = np.zeros((1300, 2600, 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "b.png"), image[:60, :60])
    (tmp_path / "c.jpg").write_bytes(b"damaged")
    whole, parts = pieces.load_pictures(tmp_path), pieces.load_pictures(tmp_path, quarters=True)
    assert [x.shape for x in whole] == [(320, 640, 3), (112, 112, 3)]
    assert len(parts) == 1 + 4 + 16 + 1
    assert whole[0][0, 0].tolist() == [200, 0, 0]  # RGB


def test_standardised_targets_are_standard_and_undone(sources, teacher):
    crops = pieces.batch(sources, 48, np.random.default_rng(0))
    targets = di.Targets(teacher, crops)
    maps = targets(torch.from_numpy(crops).float() / 255)
    assert all(abs(float(m.mean())) < 0.02 and abs(float(m.std()) - 1) < 0.05 for m in maps)
    student = en.Encoder().eval()
    with torch.no_grad():
        frames = torch.rand(2, 112, 112, 3, generator=torch.Generator().manual_seed(0))
        made, raw = targets.in_teachers_units(student).maps(frames), student.maps(frames)
    for m, r, mean, std in zip(made, raw, targets.mean, targets.std, strict=True):
        torch.testing.assert_close(m, r * std[:, None, None] + mean[:, None, None], rtol=1e-3, atol=1e-4)


def test_losses_of_equal_maps_are_none():
    maps = [torch.randn(2, 3, 4, 4)]
    spread = [torch.ones(6)]
    assert [float(x) for x in di.losses(maps, maps, spread)] == [0.0, 0.0]
    of_maps, of_embedding = di.losses([maps[0] + 1], maps, spread)
    assert float(of_maps) == pytest.approx(1.0)
    assert float(of_embedding) == pytest.approx(0.5)  # means move, deviations do not


def test_the_loss_falls(sources, teacher, tmp_path):
    recipe = di.Recipe(count=16 * 30, batch=16, rate=5e-3)
    run = di._Run(recipe, tmp_path / "none")
    targets = di.Targets(teacher, di._batch(sources, recipe, 99))
    errors = [sum(run.learn(torch.from_numpy(di._batch(sources, recipe, k)), targets)) for k in range(30)]
    assert np.mean(errors[-5:]) < 0.8 * np.mean(errors[:5])


def test_the_file_says_what_was_seen(sources, teacher, tmp_path):
    recipe = di.Recipe(count=40, batch=8)
    path = di.distil(sources, tmp_path / "s.pt", teacher, recipe, {"licence": "none"}, workers=0, progress=False)
    student, told = en.load_encoder(path)
    assert told["licence"] == "none" and told["pictures_seen"] == 40 and told["losses"][0] == 5
    assert student.kind == "mobilenet_v3_small"
    assert [p.name for p in tmp_path.iterdir()] == ["s.pt"]  # the state is gone


class Stop(Exception):
    pass


def test_an_interrupted_distillation_goes_on_as_if_it_had_not_been(sources, teacher, tmp_path, monkeypatch):
    recipe = di.Recipe(count=8 * 6, batch=8)
    run = lambda name: di.distil(sources, tmp_path / name, teacher, recipe, {}, workers=0, save_every=0, progress=False)  # noqa: E731
    whole = en.load_encoder(run("whole.pt"))[0]
    learn = di._Run.learn

    def failing(self, *given):
        if self.step == 3:
            raise Stop
        return learn(self, *given)

    monkeypatch.setattr(di._Run, "learn", failing)
    with pytest.raises(Stop):
        run("parts.pt")
    assert not (tmp_path / "parts.pt").exists() and (tmp_path / "parts.pt.state").exists()
    monkeypatch.setattr(di._Run, "learn", learn)
    parts = en.load_encoder(run("parts.pt"))[0]
    for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_is_refused(sources, teacher, tmp_path):
    with pytest.raises(ModelError, match="needs an end"):
        di.distil(sources, tmp_path / "s.pt", teacher, di.Recipe(), {})
    torch.save({"seed": 5, "batch": 64}, tmp_path / "s.pt.state")
    with pytest.raises(ModelError, match="another seed"):
        di.distil(sources, tmp_path / "s.pt", teacher, di.Recipe(count=64), {}, workers=0, progress=False)
