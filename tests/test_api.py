"""The library: load a run, encode, attend; and how maps come back onto the film."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import lingula
from lingula.data.image import letterbox
from lingula.data.prepared import PreparedCorpus
from lingula.registry import UserError
from lingula.runs.build import build_method
from lingula.runs.measure import recalibrate
from lingula.runs.model import fresh, imagenet, on_original


@pytest.fixture(scope="module")
def model(tiny_run):
    return lingula.load(tiny_run)


def film(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def test_films_come_as_arrays_or_files(model, tmp_path):
    Image.fromarray(film(60, 80)).save(tmp_path / "film.png")
    one, many = model.encode_image(tmp_path / "film.png"), model.encode_image([film(60, 80), film(90, 40, 1)])
    assert one.embedding.shape == (1, 32)
    assert many.patches.shape == (2, many.grid[0] * many.grid[1], 32)
    assert many.features.shape == (2, 96)
    torch.testing.assert_close(one.embedding[0], many.embedding[0])


def test_reports_are_split_as_in_training_and_padding_changes_nothing(model):
    first = "No pleural effusion. The heart size is normal."
    long = "FINDINGS: There is a small left pneumothorax. No effusion is seen. IMPRESSION: Small left pneumothorax."
    alone, together = model.encode_text(first), model.encode_text([first, long])
    assert [len(s) for s in together.sentences] == [2, 3]
    assert together.texts[0] == ["no pleural effusion.", "the heart size is normal."]
    torch.testing.assert_close(alone.embedding[0], together.embedding[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.sentences[0], together.sentences[0], atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="no sentence of two words"):
        model.encode_text("Normal.")


def test_attention_comes_back_on_the_films_own_pixels(model):
    attention = model.attend(film(100, 50), "There is a large left effusion. The heart is enlarged.")
    assert attention.maps.shape == (2, 100, 50)
    assert attention.weights.shape == (2, attention.grid[0] * attention.grid[1])
    assert ((attention.weights > 0) & (attention.weights < 1)).all()
    assert not np.isnan(attention.maps).any()  # without a crop all of the film is seen


def test_maps_lie_where_the_film_is_and_nowhere_else():
    """A bright spot on the film must come back at its own place, through letterbox and crop."""
    original = np.zeros((120, 80), dtype=np.uint8)
    original[70:80, 20:30] = 255
    square, geometry = letterbox(original, 64)
    crop = square[8:56, 8:56].astype(np.float32)
    (drawn,) = on_original(torch.from_numpy(crop)[None], geometry, 48, 8)
    assert drawn.shape == original.shape
    y, x = np.argwhere(np.nan_to_num(drawn) > 128).mean(0)
    assert abs(y - 74.5) < 1.5
    assert abs(x - 24.5) < 1.5
    # the crop leaves 8 of 64 rows above and below: 15 of the film's 120 rows were never seen on either side
    assert np.isnan(drawn[:15]).all()
    assert np.isnan(drawn[105:]).all()
    assert not np.isnan(drawn[15:105, :]).any()  # to the sides, the padding was cropped


def test_a_fresh_model_is_random_and_reproducible(model):
    one, same, other = fresh(model, 0), fresh(model, 0), fresh(model, 1)
    weights = [m.method.state_dict()["sentence_projection.0.weight"] for m in (one, same, other, model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_a_baseline_of_weights_from_a_file(tiny_corpus, tmp_path):
    """Its image encoder reads as torchvision's does, and and the model that it is like stays as it was."""
    method = build_method("simclr", {}, "resnet18", None, 48)
    made = {"method": "simclr", "options": {}, "image_encoder": "resnet18", "image_size": 48, "resize_to": 48}
    model = lingula.runs.model.Model(method.eval(), None, made, torch.device("cpu"))
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    theirs.fc = torch.nn.Identity()
    images = [film(48, 48, seed) for seed in range(3)]
    grey = torch.stack([torch.from_numpy(image) for image in images])[:, None] / 255
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    baseline = imagenet(model, tmp_path / "weights.pth")
    with torch.no_grad():
        expected = theirs(normalise(grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(baseline.encode_image(images).features, expected, rtol=1e-5, atol=1e-5)
    said = [m.conditions for m in (baseline, model)]
    assert [about["input_normalisation"] for about in said] == [
        "mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        "mean 0.5, std 0.5",
    ]
    before = baseline.encode_image(images).features
    recalibrate(baseline, PreparedCorpus.open(tiny_corpus), films=7)
    assert baseline.conditions["batch_norm"] == "statistics of 7 train images"
    assert not torch.allclose(baseline.encode_image(images).features, before, rtol=0.01)


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(UserError, match="no run at"):
        lingula.load(tmp_path)


def test_a_checkpoint_of_another_shape_is_refused(tiny_run, tmp_path):
    import json
    import shutil

    other = shutil.copytree(tiny_run, tmp_path / "other")
    made = json.loads((other / "run.json").read_text())
    made["options"]["dim"] = 16
    (other / "run.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match="does not fit this model"):
        lingula.load(other)


@pytest.mark.parametrize(
    ("name", "encoder", "options"),
    [("mae", "small_vit", {"decoder_heads": 0}), ("barlow-twins", "small_resnet", {"projector": ()})],
)
def test_an_option_that_breaks_the_building_is_refused_in_words(name, encoder, options):
    with pytest.raises(UserError, match=f"method '{name}': "):
        build_method(name, options, encoder, None, 32)
