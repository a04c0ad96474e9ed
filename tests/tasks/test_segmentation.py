"""The segmentation task on films with bright discs, whose masks are known exactly."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from lingula.batch import Batch
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus, packed_bytes
from lingula.evaluation.finetune import Outcome
from lingula.evaluation.statistics import patient_draws
from lingula.evaluation.task import Cell
from lingula.keyed import keyed_uniform
from lingula.losses.segmentation import focal, negative_log_dice
from lingula.nn.image_encoders import ImageEncoder, recalibrate_batch_norm
from lingula.registry import UserError
from lingula.tasks import segmentation
from lingula.tasks.segmentation import (
    Segmentation,
    Segmenter,
    as_many_negatives,
    augment,
    overlaps,
    resize_masks,
    validation_loss,
)

SIZE = 32


@pytest.fixture(scope="module", name="disc_corpus")
def _disc_corpus(tiny):
    return partial(make_discs, tiny.tables)


def make_discs(make_tables, size=SIZE, noise=60, split=None):
    """40 films of 20 patients, 24 of them to train on, and every third film without a disc."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    masks = np.zeros((40, size, size), dtype=bool)
    for film in range(40):
        if film % 3:
            masks[film] = (y - rng.uniform(0.3, 0.7)) ** 2 + (x - rng.uniform(0.3, 0.7)) ** 2 < 0.2**2
    pixels = np.where(masks, 255.0, 0.0) + (rng.normal(0, noise, masks.shape) if noise else 0)
    columns = {
        "study_id": [f"film-{film}" for film in range(40)],
        "patient_id": [f"patient-{film // 2}" for film in range(40)],
        "split": split or ["train"] * 24 + ["val"] * 6 + ["test"] * 10,
    }
    tables = make_tables(columns, masks=[(film, "disc") for film in range(40)])
    labels = {"label_names": [], "label_groups": {}, "uncertain_as": {}, "unknown_as": {}}
    meta = {"name": "discs", "size": size, "fingerprint": "0", **labels}
    packed = np.packbits(masks.reshape(40, -1), axis=1)
    assert packed.shape[1] == packed_bytes(size)
    return PreparedCorpus(Path("discs"), meta, tables, pixels.clip(0, 255).astype(np.uint8), packed)


def make_model(corpus, image_size=SIZE, name="small_resnet"):
    torch.manual_seed(0)
    encoder = ImageEncoder(name, image_size)
    loader = Loader(corpus, corpus.rows("train"), image_size, image_size, 24)
    recalibrate_batch_norm(encoder, [batch.image for batch in loader])
    return SimpleNamespace(
        method=SimpleNamespace(image_encoder=encoder.eval()),
        name="cm-cgns",
        checkpoint="x",
        image_size=image_size,
        resize_to=image_size + 4,
        batch_size=8,
        device=torch.device("cpu"),
        tokenizer=None,
    )


@pytest.fixture(scope="module")
def corpus(disc_corpus):
    return disc_corpus()


@pytest.fixture(scope="module")
def model(corpus):
    return make_model(corpus)


@pytest.fixture
def trained(monkeypatch):
    """The modules that were measured, each with its test loader."""
    kept = []

    def remember(module, loader):
        kept.append((module, loader))
        return overlaps(module, loader)

    monkeypatch.setattr(segmentation, "overlaps", remember)
    return kept


def weights_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


# Training and test ----------------------------------------------------------------------------------------------------


def test_training_helps(corpus, model, trained):
    before = weights_of(model.method.image_encoder)
    task = Segmentation("disc", fractions=[1.0], epochs=8, learning_rate=5e-3, batch_size=8)
    (measured,) = task.measure(model, corpus, [Cell(1.0, 3)], draws=50)
    untrained = Segmentation("disc", fractions=[1.0], epochs=1, learning_rate=1e-9, batch_size=8)
    (chance,) = untrained.measure(model, corpus, [Cell(1.0, 3)], draws=50)
    assert measured.numbers["dice_positive"] > 0.6 > 0.45 > chance.numbers["dice_positive"]
    # Frozen is frozen, BatchNorm too, in what was trained and in what was handed in.
    assert equal(before, weights_of(model.method.image_encoder))
    assert equal(before, weights_of(trained[0][0].unet.encoder.encoder))
    # The numbers are those that another library makes of the same predictions, film by film.
    module, loader = trained[0]
    assert loader.rows.tolist() == corpus.rows("test").tolist()
    films = torch.from_numpy(corpus.pixels[corpus.rows("test")])[:, None].float() / 127.5 - 1
    truth = corpus.masks(corpus.rows("test"), "disc").reshape(10, -1)
    with torch.inference_mode():
        predicted = (torch.sigmoid(module.unet(films)) > 0.5).flatten(1).numpy()
    for name, theirs in (("dice", f1_score), ("iou", jaccard_score)):
        values = np.array([theirs(*pair, zero_division=1.0) for pair in zip(truth, predicted, strict=True)])
        lesion = truth.any(1)
        assert measured.numbers[name] == pytest.approx(values.mean())
        assert measured.numbers[f"{name}_positive"] == pytest.approx(values[lesion].mean())
    assert measured.numbers["empty_share"] == 1 - lesion.mean() == pytest.approx(0.4)
    row = measured.row()
    assert row["train_studies"] == 24
    assert row["test_studies"] == 10
    assert (row["protocol"], row["encoder_mode"]) == ("mgca", "frozen")
    assert row["epochs"] == 8
    assert "subset_sha256" not in row
    # Replicates: the mean over the films of the patients that were drawn.
    values = np.array([f1_score(*pair, zero_division=1.0) for pair in zip(truth, predicted, strict=True)])
    draws = patient_draws(corpus, corpus.rows("test"), 50)
    assert set(measured.replicates) == set(Segmentation.higher_is_better) == {"dice", "dice_positive", "iou"}
    np.testing.assert_allclose(measured.replicates["dice"], draws @ values / draws.sum(1))
    found = draws * lesion
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(measured.replicates["dice_positive"], found @ values / found.sum(1))


def test_the_same_seed_gives_the_same_bits(corpus, model, trained):
    task = Segmentation("disc", epochs=1)
    torch.manual_seed(5)
    first, again, _ = task.measure(model, corpus, [Cell(1.0, 3), Cell(1.0, 3), Cell(1.0, 4)], draws=10)
    assert again.row() == first.row()
    one, same, another = (weights_of(module.unet.head) for module, _ in trained)
    assert equal(one, same)
    assert not equal(one, another)


def test_finetuned_trains_a_copy(corpus, model, trained):
    before = weights_of(model.method.image_encoder)
    task = Segmentation("disc", encoder="finetuned", fractions=[1.0], epochs=1, batch_size=8)
    (measured,) = task.measure(model, corpus, [Cell(1.0, 0)], draws=10)
    assert measured.notes["encoder_mode"] == "finetuned"
    assert equal(before, weights_of(model.method.image_encoder))
    assert not model.method.image_encoder.training
    after = weights_of(trained[0][0].unet.encoder)
    assert not torch.equal(after["backbone.stem.0.weight"], before["backbone.stem.0.weight"])
    assert not torch.equal(after["backbone.stem.1.running_mean"], before["backbone.stem.1.running_mean"])


def test_fractions_are_drawn_by_patient_and_by_lesion(corpus, model):
    task = Segmentation("disc", fractions=[0.25, 1.0], epochs=1)
    cells = task.cells([0, 1])
    assert cells == [Cell(0.25, 0), Cell(0.25, 1), Cell(1.0, 0), Cell(1.0, 1)]
    quarter, other, whole = task.measure(model, corpus, [cells[0], cells[1], cells[3]], draws=10)
    assert [measured.cell for measured in (quarter, other, whole)] == [cells[0], cells[1], cells[3]]
    assert whole.subset_ids is None
    assert quarter.subset_ids != other.subset_ids
    for measured in (quarter, other):
        films = sorted(int(study.removeprefix("film-")) for study in measured.subset_ids)
        assert measured.notes["train_studies"] == len(films) == 6  # three of twelve patients
        assert max(films) < 24
        assert films[::2] == [film - 1 for film in films[1::2]]  # both films of each
        assert any(film % 3 for film in films)
    assert quarter.notes["test_sha256"] == whole.notes["test_sha256"]


def test_what_is_asked_of_training(disc_corpus, model, monkeypatch):
    """Order and luck by the cell's seed; no share so small that it has no lesion, and none that is all lesions."""
    asked = []

    def no_training(module, loader, score, higher_is_better, tuning, seed, device):
        asked.append((loader.seed, loader.training, loader.batch_size, seed, higher_is_better))
        return Outcome(1, 1, 0.0)

    monkeypatch.setattr(segmentation, "finetune", no_training)
    few = disc_corpus()
    few._packed_masks = np.where((np.arange(40) % 3 == 1)[:, None], few._packed_masks, 0).astype(np.uint8)
    task = Segmentation("disc")
    small, whole = task.measure(model, few, [Cell(0.01, 7), Cell(1.0, 8)], draws=10)
    assert asked == [(7, True, 4, 7, False), (8, True, 16, 8, False)]
    assert whole.notes["train_studies"] == 24
    patients = {int(study.removeprefix("film-")) // 2 for study in small.subset_ids}
    assert len(patients) == 2  # of the first kind 2 of 3 patients are
    assert {any(film % 3 == 1 for film in (2 * one, 2 * one + 1)) for one in patients} == {True, False}


def test_as_many_negatives_in_training_only(disc_corpus, corpus, model):
    """Of 24 films 16 have a disc, so all negatives stay; turned round, 8 of 16 are drawn."""
    few = disc_corpus()
    few._packed_masks = np.where((np.arange(40) % 3 == 1)[:, None], few._packed_masks, 0).astype(np.uint8)
    task = Segmentation("disc", fractions=[1.0], epochs=1, negatives="as-many", batch_size=8)
    (measured,) = task.measure(model, few, [Cell(1.0, 0)], draws=10)
    films = {int(study.removeprefix("film-")) for study in measured.subset_ids}
    assert len(films) == measured.notes["train_studies"] == 16
    assert {film for film in range(24) if film % 3 == 1} < films
    assert measured.notes["test_studies"] == 10
    (measured,) = task.measure(model, corpus, [Cell(1.0, 0)], draws=10)
    assert measured.subset_ids is None
    (measured,) = Segmentation("disc", epochs=1, negatives="as-many").measure(model, few, [Cell(0.5, 0)], draws=10)
    assert set(measured.subset_ids) < {f"film-{film}" for film in films}


def test_no_lesion_in_the_test_split(disc_corpus, model):
    corpus = disc_corpus()
    corpus._packed_masks = np.where((np.arange(40) < 30)[:, None], corpus._packed_masks, 0).astype(np.uint8)
    (measured,) = Segmentation("disc", epochs=1).measure(model, corpus, [Cell()], draws=10)
    assert np.isnan(measured.numbers["dice_positive"])
    assert np.isnan(measured.numbers["iou_positive"])
    assert np.isnan(measured.replicates["dice_positive"]).all()
    assert measured.numbers["empty_share"] == 1
    assert 0 <= measured.numbers["dice"] <= 1


def test_a_transformer(corpus):
    model = make_model(corpus, name="vit_tiny_patch16_224")
    (measured,) = Segmentation("disc", epochs=1).measure(model, corpus, [Cell(0.25, 0)], draws=10)
    assert 0 <= measured.numbers["dice"] <= 1


def test_a_prepared_corpus(tiny_corpus):
    corpus = PreparedCorpus.open(tiny_corpus)
    task = Segmentation("cardiomegaly", fractions=[0.5], epochs=1)
    (measured,) = task.measure(make_model(corpus), corpus, task.cells([0]), draws=10)
    assert measured.notes["test_studies"] == 16
    assert measured.numbers["empty_share"] == pytest.approx(15 / 16)


def test_errors(disc_corpus, corpus, model):
    with pytest.raises(UserError, match="has no mask 'disk'; did you mean 'disc'"):
        next(Segmentation("disk").measure(model, corpus, [Cell()], 10))
    with pytest.raises(UserError, match="encoder must be frozen or finetuned, got 'thawed'"):
        Segmentation("disc", encoder="thawed")
    with pytest.raises(UserError, match="negatives must be all or as-many, got 'some'"):
        Segmentation("disc", negatives="some")
    with pytest.raises(UserError, match="protocol must be mgca, got 'prior'"):
        Segmentation("disc", protocol="prior")
    with pytest.raises(UserError, match="epochs must be 1 or more, got 0"):
        Segmentation("disc", epochs=0)
    with pytest.raises(UserError, match=r"lie in \(0, 1\], got 2"):
        Segmentation("disc", fractions=[0.1, 2])
    bare = disc_corpus(split=["train"] * 24 + ["val"] * 16)
    with pytest.raises(UserError, match="corpus discs has no test studies with mask 'disc'"):
        next(Segmentation("disc").measure(model, bare, [Cell()], 10))


def test_the_protocol():
    tuning = Segmentation("disc").tuning
    numbers = (tuning.learning_rate, tuning.weight_decay, tuning.batch_size, tuning.epochs, tuning.patience)
    assert numbers == (5e-4, 0.05, 16, 50, 10)
    assert Segmentation("disc", learning_rate=1e-3, patience=3).tuning.learning_rate == 1e-3
    assert Segmentation("disc").fractions == [0.01, 0.1, 1.0]


# What is predicted, and what it costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predict", "expected"),
    [
        (lambda films: films, {"dice": 1, "dice_positive": 1, "iou": 1, "iou_positive": 1}),
        (lambda films: -torch.ones_like(films), {"dice": 0.4, "dice_positive": 0, "iou": 0.4, "iou_positive": 0}),
        (lambda films: torch.zeros_like(films), {"dice": 0.4, "dice_positive": 0, "iou": 0.4, "iou_positive": 0}),
        (lambda films: -films, {"dice": 0, "dice_positive": 0, "iou": 0, "iou_positive": 0}),
    ],
    ids=["perfect", "nothing", "not above one half", "inverted"],
)
def test_predictors_whose_numbers_are_known(disc_corpus, model, predict, expected):
    clean = disc_corpus(noise=0)
    module = Segmenter(model, clean, "disc", False).eval()
    module.unet.forward = predict
    values, lesion = overlaps(module, Loader(clean, clean.rows("test"), SIZE, SIZE, 4))
    assert lesion.tolist() == [film % 3 != 0 for film in range(30, 40)]
    for name, value in expected.items():
        assert np.nanmean(values[name]) == pytest.approx(value), name
        assert len(values[name]) == 10
    assert np.isnan(values["dice_positive"]).tolist() == (~lesion).tolist()


def test_the_loss_of_a_batch(corpus, model):
    """Augmented in training, as it is in evaluation; two terms, 10 * focal and - log Dice."""
    module = Segmenter(model, corpus, "disc", False)
    batch = Loader(corpus, corpus.rows("train"), SIZE, SIZE, 8, training=True).batch(0)
    truth = torch.from_numpy(corpus.masks(batch.rows.numpy(), "disc"))[:, None]
    seen = []
    module.unet.register_forward_hook(lambda unet, args, logits: seen.append((args[0], logits)))
    for training in (True, False):
        module.train(training)
        terms = module(batch)
        images, masks = augment(batch.image, truth, batch.seed, batch.rows) if training else (batch.image, truth)
        assert torch.equal(seen[-1][0], images)
        assert list(terms) == ["focal", "log_dice"]
        torch.testing.assert_close(terms["focal"], 10 * focal(seen[-1][1], masks).mean())
        torch.testing.assert_close(terms["log_dice"], negative_log_dice(seen[-1][1], masks))
    assert not torch.equal(seen[0][0], seen[1][0])


def test_validation_weighs_batches_by_their_size(corpus, model):
    module = Segmenter(model, corpus, "disc", False).eval()
    loader = Loader(corpus, corpus.rows("val"), SIZE, SIZE, 4)  # batches of 4 and 2
    with torch.no_grad():
        losses = [float(sum(module(batch).values())) for batch in loader]
    assert validation_loss(module, loader) == pytest.approx((4 * losses[0] + 2 * losses[1]) / 6)
    assert abs(losses[0] - losses[1]) > 0.01


def test_masks_and_films_of_another_size_stay_together(disc_corpus, model):
    """Prepared at 44 pixels, seen at 32: the mask lies where the film is bright."""
    clean = disc_corpus(size=44, noise=0)
    module = Segmenter(model, clean, "disc", False)
    loader = Loader(clean, np.arange(40), SIZE, SIZE, 40)
    batch = next(iter(loader))
    truth = module.truth(batch.rows)
    assert truth.shape == (40, 1, SIZE, SIZE)
    differ = ((batch.image > 0) != truth).flatten(1).sum(1)
    assert differ.max() <= 4  # of about 128: the film's filter is a triangle, the mask's a box


# Geometry -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "size"), [(12, 4), (10, 7), (7, 10), (6, 12), (5, 5), (36, 28)])
def test_masks_are_resized_by_area(side, size):
    """Against counting parts so small that old and new pixels both are whole numbers of them."""
    masks = np.random.default_rng(side).random((2, side, side)) < 0.5
    parts = masks.repeat(size, 1).repeat(size, 2).reshape(2, size, side, size, side)
    ours = resize_masks(torch.from_numpy(masks), size)
    assert ours.dtype == torch.bool
    assert np.array_equal(ours.numpy(), 2 * parts.sum((2, 4)) >= side * side)


def test_large_masks_are_resized_exactly_under_autocast():
    mask = np.random.default_rng(0).random((250, 250)) < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = resize_masks(torch.from_numpy(mask)[None], 224)[0].numpy()
    theirs = cv2.resize(mask.astype(np.float64), (224, 224), interpolation=cv2.INTER_AREA)
    sure = abs(theirs - 0.5) > 1e-6
    assert np.array_equal(ours[sure], (theirs > 0.5)[sure])


def test_half_a_pixel_is_inside():
    masks = torch.tensor([[[True, False], [True, False]], [[True, False], [False, False]]])
    assert resize_masks(masks, 1).flatten().tolist() == [True, False]
    thirds = torch.zeros(1, 6, 6, dtype=torch.bool)
    thirds[:, :, 0] = True  # 6 to 4 pixels: each covers 1.5, the first one and a half of which one is inside
    assert resize_masks(thirds, 4)[0, 0].tolist() == [True, False, False, False]


def markers(count, size=101):
    """A film with one bright spot 30 pixels right of the centre, black elsewhere."""
    films = torch.full((count, 1, size, size), -1.0)
    films[:, :, 48:53, 78:83] = 1.0
    return films, films > 0


def test_films_turn_and_scale_as_stated():
    films, masks = markers(400)
    keys = torch.arange(400)
    moved, moved_masks = augment(films, masks, 5, keys)
    same = (moved == films).flatten(1).all(1)
    assert 160 < same.sum() < 240  # half, four standard deviations
    assert (moved_masks == masks)[same].all()
    light = (moved[~same, 0] + 1).double()
    places = torch.arange(101).double() - 50
    x, y = (light * places).sum((1, 2)) / light.sum((1, 2)), (light * places[:, None]).sum((1, 2)) / light.sum((1, 2))
    degrees, scale = torch.rad2deg(torch.atan2(y, x)), torch.hypot(x, y) / 30
    assert degrees.abs().max() < 10.5
    assert degrees.min() < -9
    assert degrees.max() > 9
    assert scale.min() == pytest.approx(0.9, abs=0.02)
    assert scale.max() == pytest.approx(1.1, abs=0.02)
    assert abs(torch.corrcoef(torch.stack([degrees, scale]))[0, 1]) < 0.25
    assert abs(degrees.mean()) < 1.7  # four standard errors
    size = light.gt(1).sum((1, 2)).sqrt() / 5  # the spot grows with the film
    assert torch.corrcoef(torch.stack([size.double(), scale]))[0, 1] > 0.8


def test_films_move_as_opencv_moves_them():
    generator = torch.Generator().manual_seed(0)
    films = torch.rand(8, 1, 12, 12, generator=generator)
    films = torch.nn.functional.interpolate(films, (40, 40), mode="bilinear") * 2 - 1
    masks = films > 0
    keys = torch.arange(100, 108)
    moved, moved_masks = augment(films, masks, 11, keys)
    numbers = keyed_uniform(11, keys, 3).tolist()
    assert {luck < 0.5 for luck, _, _ in numbers} == {True, False}
    for place, (luck, turn, zoom) in enumerate(numbers):
        if luck >= 0.5:
            assert torch.equal(moved[place], films[place])
            continue
        matrix = cv2.getRotationMatrix2D((19.5, 19.5), -(20 * turn - 10), 0.9 + 0.2 * zoom)
        film = cv2.warpAffine(films[place, 0].numpy() + 1, matrix, (40, 40), flags=cv2.INTER_LINEAR) - 1
        assert np.abs(moved[place, 0].numpy() - film).max() < 0.1  # OpenCV's places are 1/32 pixels apart
        mask = cv2.warpAffine(masks[place, 0].numpy().astype(np.uint8), matrix, (40, 40), flags=cv2.INTER_NEAREST)
        assert (moved_masks[place, 0].numpy() != mask).mean() < 0.02


def test_mask_and_film_move_together_and_the_border_is_black(disc_corpus):
    masks = torch.from_numpy(disc_corpus(size=64, noise=0).masks(np.arange(40), "disc"))[:, None]
    films = masks.float() * 2 - 1
    moved, moved_masks = augment(films, masks, 3, torch.arange(40))
    assert moved_masks.dtype == torch.bool
    assert not torch.equal(moved_masks, masks)
    assert ((moved > 0) != moved_masks).flatten(1).float().mean(1).max() < 0.01
    white, everywhere = augment(
        torch.ones(40, 1, 16, 16), torch.ones(40, 1, 16, 16, dtype=torch.bool), 3, torch.arange(40)
    )
    beyond = ~everywhere
    assert beyond.any()
    assert white[beyond].max() <= 0.01  # at most half a pixel of the film is left in those
    assert white.min() == -1
    assert white.max() <= 1


def test_augmentation_belongs_to_the_film_and_the_step():
    films, masks = markers(16)
    keys = torch.arange(16) + 50
    moved, moved_masks = augment(films, masks, 5, keys)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    again, again_masks = augment(films[order], masks[order], 5, keys[order])
    assert torch.equal(again, moved[order])
    assert torch.equal(again_masks, moved_masks[order])
    assert not torch.equal(augment(films, masks, 6, keys)[0], moved)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, cast_masks = augment(films, masks, 5, keys)
    assert torch.equal(cast, moved)
    assert torch.equal(cast_masks, moved_masks)


def test_as_many_negatives():
    lesion = np.array([False, True] + [False] * 8 + [True])
    drawn = as_many_negatives(lesion, 0)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert lesion[drawn].sum() == 2
    assert len(drawn) == 4
    assert as_many_negatives(lesion, 0).tolist() == drawn.tolist()
    assert len({tuple(as_many_negatives(lesion, seed)) for seed in range(9)}) > 3
    assert as_many_negatives(~lesion, 0).tolist() == list(range(11))
    with pytest.raises(UserError, match="no training film has a lesion"):
        as_many_negatives(np.zeros(3, dtype=bool), 0)


def test_batches_travel_whole(corpus, model):
    """A batch whose rows are in any order gets its own masks."""
    module = Segmenter(model, corpus, "disc", False)
    rows = torch.tensor([7, 3, 30, 3])
    assert torch.equal(module.truth(rows)[:, 0], torch.from_numpy(corpus.masks(rows.numpy(), "disc")))
    batch = Batch(torch.zeros(4, 1, 1, SIZE, SIZE), rows, seed=0)
    assert all(term.isfinite() for term in module(batch).values())
