"""Detection: what its heads learn, what they leave alone, and how their boxes are measured."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.finetune import Tuning, finetune
from lingula.evaluation.studies import ids_of
from lingula.evaluation.task import Cell
from lingula.metrics.detection import average_precision, mean_average_precision
from lingula.nn.frozen import encoder_to_use
from lingula.nn.image_encoders import ImageEncoder
from lingula.records import id_hash
from lingula.registry import UserError
from lingula.tasks import detection
from lingula.tasks.detection import WEIGHTS, Detection, Detector, true_boxes

TARGETS = ["effusion", "cardiomegaly"]


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return PreparedCorpus.open(tiny_corpus)


def model_of(name="small_resnet", size=48):
    torch.manual_seed(0)
    encoder = ImageEncoder(name, size).eval()
    return SimpleNamespace(
        method=SimpleNamespace(image_encoder=encoder), image_size=size, resize_to=size, device=torch.device("cpu")
    )


def detector_of(corpus, model, targets=TARGETS, finetuned=False, confidence=0.5):
    corners, labels = true_boxes(corpus, targets, model.image_size)
    encoder = encoder_to_use(model.method.image_encoder, finetuned)
    return Detector(encoder, corners, labels, len(targets), model.image_size, confidence)


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_true_boxes_are_those_of_the_corpus_in_pixels_of_the_film_that_is_seen(corpus):
    corners, labels = true_boxes(corpus, TARGETS, 96)  # films of 48 pixels, seen at 96
    for row in range(len(corpus)):
        found = [(label, *box) for label, box in zip(labels[row], corners[row].tolist(), strict=True) if label >= 0]
        expected = [
            (TARGETS.index(box.name), *(2 * np.float32([box.x0, box.y0, box.x1, box.y1])).tolist())
            for box in corpus.boxes().itertuples()
            if box.row == row and box.name in TARGETS
        ]
        assert sorted(found) == sorted(expected)
    assert (labels >= 0).sum(1).max() == labels.shape[1] > 1
    assert (labels < 0).all(1).any()  # a film on which somebody looked and found nothing


@pytest.mark.parametrize("name", ["small_resnet", "resnet50", "vit_tiny_patch16_224"])
def test_every_kind_of_encoder_is_trained_and_finds(corpus, name):
    model = model_of(name)
    detector = detector_of(corpus, model, finetuned=True)
    batch = next(iter(Loader(corpus, corpus.rows("train"), 48, 48, 4)))
    terms = detector.train()(batch)
    assert list(terms) == list(WEIGHTS)
    assert all(value.ndim == 0 and bool(value.isfinite()) for value in terms.values())
    sum(terms.values()).backward()
    first = next(p for p in detector.encoder.parameters() if p.dim() == 4)
    assert first.grad is not None
    assert bool(first.grad.any())
    assert all(p.grad is not None and bool(p.grad.any()) for p in detector.head.parameters())
    found = detector.find(Loader(corpus, corpus.rows("val"), 48, 48, 8))
    assert found.corners.shape == (len(found.image), 4)


def test_it_learns_four_films_by_heart_and_finds_their_boxes(corpus, monkeypatch):
    corners, labels = true_boxes(corpus, TARGETS, 48)
    rows = np.flatnonzero((labels >= 0).any(1))[:3]
    rows = np.append(rows, np.flatnonzero((labels < 0).all(1))[0])  # and one without boxes
    model = model_of()
    torch.manual_seed(0)
    detector = detector_of(corpus, model, finetuned=True)
    before = states(model.method.image_encoder)
    truth = detection._flat(corners[rows], labels[rows])

    def score():
        found = detector.find(Loader(corpus, rows, 48, 48, 3))  # two batches: films are counted on
        return float(mean_average_precision(average_precision(found, truth, 4, 2), 0.40, 0.75))

    fit = importlib.import_module("lingula.evaluation.finetune").fit

    def longer(fabric, module, optimizer, films, rate, steps, start, **options):
        fit(fabric, module, optimizer, films, rate, 10 * steps, 10 * start, **options)  # it is validation that is slow

    monkeypatch.setattr("lingula.evaluation.finetune.fit", longer)
    loader = Loader(corpus, rows, 48, 48, 4, training=True)
    outcome = finetune(detector, loader, score, True, Tuning(4e-3, epochs=5), seed=0, device=model.device)
    assert outcome.score > 0.9
    assert equal(before, states(model.method.image_encoder))  # a copy of it was trained


def test_a_frozen_encoder_stays_as_it_was_and_so_do_the_labels(corpus, monkeypatch):
    model = model_of()
    encoder, table = model.method.image_encoder, corpus.boxes().copy()
    before, trained = states(encoder), []

    def watched(module, *args, **options):
        given = states(module), module.boxes.clone(), module.labels.clone()
        outcome = finetune(module, *args, **options)
        trained.append((given, module))
        return outcome

    monkeypatch.setattr(detection, "finetune", watched)
    for mode in ("frozen", "finetuned"):
        task = Detection(TARGETS, mode, epochs=1, batch_size=8)
        [measured] = task.measure(model, corpus, [Cell()], 2)
        assert measured.notes["encoder_mode"] == mode
        assert equal(before, states(encoder))
        (given, boxes, labels), module = trained.pop()
        after = states(module)
        assert any(name.startswith("encoder") and "running_mean" in name for name in after)
        for name, value in after.items():
            may_move = mode == "finetuned" or not name.startswith("encoder")
            assert not torch.equal(value, given[name]) or not may_move or "branch" in name, name
            assert torch.equal(value, given[name]) or may_move, name
        assert torch.equal(module.boxes, boxes)
        assert torch.equal(module.labels, labels)
        assert not any("boxes" in name or "labels" in name for name in after)  # a checkpoint holds no labels
    assert corpus.boxes().equals(table)


def test_the_same_seed_gives_the_same_bits_and_the_subset_is_drawn_by_patient(corpus, monkeypatch):
    kept, find = [], Detector.find
    monkeypatch.setattr(Detector, "find", lambda self, loader: kept.append(find(self, loader)) or kept[-1])
    task = Detection(TARGETS, fractions=[0.5], epochs=1, batch_size=4, confidence=0.3)
    cells = task.cells([0, 1])
    assert cells == [Cell(0.5, 0), Cell(0.5, 1)]
    model = model_of()
    first, other = task.measure(model, corpus, cells, 20)
    torch.manual_seed(17)
    [again] = task.measure(model, corpus, cells[:1], 20)
    assert first.numbers == again.numbers
    assert first.notes == again.notes
    assert first.subset_ids == again.subset_ids != other.subset_ids
    for name in task.higher_is_better:
        np.testing.assert_array_equal(first.replicates[name], again.replicates[name])
        assert first.replicates[name].shape == (20,)
    test_of_first, test_of_other, test_of_again = kept[1::2]  # each after validation's
    assert len(test_of_first.image) > 0
    for field in ("image", "label", "corners", "score"):
        np.testing.assert_array_equal(getattr(test_of_first, field), getattr(test_of_again, field))
    assert not np.array_equal(test_of_first.score, test_of_other.score)
    test = corpus.rows("test")
    assert first.notes["train_studies"] == len(first.subset_ids) < len(corpus.rows("train"))
    assert first.notes["test_studies"] == len(test) == 16
    assert first.notes["test_sha256"] == id_hash(ids_of(corpus, test))
    patients = dict(zip(corpus.to_pandas()["study_id"], corpus.to_pandas()["patient_id"], strict=True))
    drawn = {patients[study] for study in first.subset_ids}
    everyone = [study for study in ids_of(corpus, corpus.rows("train")) if patients[study] in drawn]
    assert sorted(first.subset_ids) == sorted(everyone)


def truth_of(corpus, split, shift=0.0):
    corners, labels = true_boxes(corpus, TARGETS, 48)
    rows = corpus.rows(split)
    return detection._flat(corners[rows] + np.float32(shift), labels[rows])


def measured_with(corpus, monkeypatch, found_in):
    """The numbers of a detector that finds what it is told to, without training."""
    monkeypatch.setattr(Detector, "find", lambda self, loader: found_in(len(loader.rows)))
    monkeypatch.setattr("lingula.evaluation.finetune.fit", lambda *args, **options: None)
    [measured] = Detection(TARGETS, epochs=1, batch_size=8).measure(model_of(), corpus, [Cell()], 50)
    return measured


def test_a_perfect_detector_scores_1(corpus, monkeypatch):
    by_count = {len(corpus.rows(split)): truth_of(corpus, split) for split in ("val", "test")}
    measured = measured_with(corpus, monkeypatch, by_count.__getitem__)
    names = ["map_40_75", "map_50_95", "map_40_75/effusion", "map_40_75/cardiomegaly"]
    assert list(measured.numbers) == names
    assert list(measured.numbers.values()) == pytest.approx([1.0] * 4)
    assert measured.notes["test_boxes"] == measured.notes["test_found"] == len(by_count[16].image)
    for name in Detection.higher_is_better:
        np.testing.assert_allclose(measured.replicates[name], 1.0)
    assert measured.row()["map_40_75_low"] == pytest.approx(1.0)


def test_the_epoch_counts_that_is_best_on_validation(corpus, monkeypatch):
    truth = truth_of(corpus, "val")
    finds = iter([truth[:1], truth, truth[:2], truth_of(corpus, "test")])
    monkeypatch.setattr(Detector, "find", lambda self, loader: next(finds))
    monkeypatch.setattr("lingula.evaluation.finetune.fit", lambda *args, **options: None)
    [measured] = Detection(TARGETS, epochs=3, batch_size=8).measure(model_of(), corpus, [Cell()], 2)
    assert (measured.notes["best_epoch"], measured.notes["val_score"]) == (2, pytest.approx(1.0))


def test_a_detector_that_finds_nothing_scores_0_and_one_beside_the_boxes_something(corpus, monkeypatch):
    nothing = truth_of(corpus, "test")[np.zeros(0, dtype=int)]
    measured = measured_with(corpus, monkeypatch, lambda films: nothing)
    assert set(measured.numbers.values()) == {0.0}
    assert all((values == 0).all() for values in measured.replicates.values())
    beside = {len(corpus.rows(split)): truth_of(corpus, split, 2.0) for split in ("val", "test")}
    measured = measured_with(corpus, monkeypatch, beside.__getitem__)
    assert 0 < measured.numbers["map_50_95"] < measured.numbers["map_40_75"] < 1
    per_class = [measured.numbers[f"map_40_75/{target}"] for target in TARGETS]
    assert measured.numbers["map_40_75"] == pytest.approx(np.mean(per_class))
    low, high = np.quantile(measured.replicates["map_40_75"], [0.0, 1.0])
    assert low < measured.numbers["map_40_75"] < high


def logit(p):
    return float(np.log(p) - np.log1p(-p))


@pytest.mark.parametrize("classes", [1, 2])
def test_sure_boxes_are_given_once_each_with_their_class_and_score(corpus, monkeypatch, classes):
    detector = detector_of(corpus, model_of(), TARGETS[:classes])
    anchor = detector.anchors[2, 0]

    def predict(images):
        """On every film: a sure box, a less sure one of the same class and place, and some more."""
        logits = torch.full((len(images), 3, 3, 3, 5 + classes), -9.0)
        logits[..., :4] = 0.0
        logits[:, 0, 1, 1, 4:6] = torch.tensor([logit(0.9), logit(0.8)])
        logits[:, 1, 1, 1, 2:4] = (anchor / detector.anchors[2, 1]).log()  # the same box by another anchor
        logits[:, 1, 1, 1, 4] = logit(0.6)
        logits[:, 1, 1, 1, 4 + classes] = logit(0.7)  # of two classes the second
        logits[:, 0, 0, 2, 4] = logit(0.51)
        logits[:, 0, 2, 0, 4] = logit(0.49)  # not sure enough
        return [torch.full((len(images), 3, 12, 12, 5 + classes), -9.0), logits[:, :, :0], logits]

    monkeypatch.setattr(detector, "predict", predict)
    found = detector.find(Loader(corpus, corpus.rows("val"), 48, 48, 5))
    assert np.bincount(found.image, minlength=8).tolist() == [2 if classes == 1 else 3] * 8
    own = found[found.image == 6]
    width, height = anchor.tolist()
    middle = [24 - width / 2, 24 - height / 2, 24 + width / 2, 24 + height / 2]
    np.testing.assert_allclose(own.corners[0], middle, rtol=1e-5)
    np.testing.assert_allclose(own.corners[-1], np.add(middle, [16, -16, 16, -16]), rtol=1e-5)
    if classes == 1:
        assert own.label.tolist() == [0, 0]
        np.testing.assert_allclose(own.score, [0.9, 0.51], rtol=1e-5)  # objectness alone
    else:
        assert own.label[:2].tolist() == [0, 1]  # the same place, another class
        np.testing.assert_allclose(own.score[:2], [0.9 * 0.8, 0.6 * 0.7], rtol=1e-5)


def test_the_terms_have_the_weights_of_the_protocol(corpus, monkeypatch):
    detector = detector_of(corpus, model_of())
    batch = next(iter(Loader(corpus, corpus.rows("train"), 48, 48, 4)))
    per_film = {name: torch.arange(4.0) for name in WEIGHTS}
    monkeypatch.setattr(detection, "yolo", lambda *args: per_film)
    terms = {name: float(value) / 1.5 for name, value in detector(batch).items()}
    assert terms == {"centre": 2.5, "size": 2.5, "object": 1.0, "background": 0.5, "class": 1.0}
    assert detection.PROTOCOLS["mgca"] == Tuning(5e-4, 1e-6, 16, 50, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": []}, "name what to find"),
        ({"targets": ["effusion", "effusion"]}, "each once"),
        ({"encoder": "thawed"}, "frozen or finetuned, got 'thawed'"),
        ({"protocol": "lovt"}, "unknown protocol 'lovt'; known: mgca"),
        ({"confidence": 0.0}, r"confidence lies in \(0, 1\), got 0.0"),
        ({"epochs": 0}, "epochs must be 1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        Detection(**{"targets": TARGETS} | options)


def test_unknown_targets_and_fractions_are_refused(corpus):
    with pytest.raises(UserError, match="no boxes 'efusion'; did you mean 'effusion'"):
        list(Detection(["efusion"]).measure(model_of(), corpus, [Cell()], 2))
    with pytest.raises(UserError, match="fractions"):
        Detection(TARGETS, fractions=[1.5]).cells([0])


def test_what_nobody_found_anywhere_has_no_boxes(corpus):
    corners, labels = true_boxes(corpus, ["looked for in vain"], 48)
    assert corners.shape == (len(corpus), 1, 4)
    assert bool((labels == -1).all())
    assert len(detection._flat(corners, labels).image) == 0


def test_validation_without_a_box_is_refused_before_training(tiny, corpus):
    bare = tiny.changed(corpus, boxes=corpus.boxes()[~corpus.boxes()["row"].isin(corpus.rows("val"))])
    with pytest.raises(UserError, match=r"no val study has a box of .*, to choose the best epoch by"):
        next(Detection(TARGETS).measure(model_of(), bare, [Cell()], 10))
