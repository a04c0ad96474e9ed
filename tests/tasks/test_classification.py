"""Classification: subsets, heads and intervals against known truth."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.evaluation.statistics import summarise
from lingula.evaluation.task import Cell
from lingula.nn.image_encoders import ImageEncoder
from lingula.registry import UserError
from lingula.tasks.classification import (
    Classification,
    FeatureLoader,
    Labelled,
    _logistic_head,
    extract_features,
    label_loss,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return prepare(Synthetic(train=240, val=60, test=80, film_size=32), folder, 32, workers=0, log=lambda line: None)


def oracle_features(corpus, names, noise, seed=0):
    """Features that hold the labels linearly, under noise."""
    rng = np.random.default_rng(seed)
    labels = corpus.labels(names)
    features = labels @ rng.normal(size=(len(names), 20)) + noise * rng.normal(size=(len(labels), 20))
    return {split: features[corpus.rows(split)].astype(np.float32) for split in ("train", "val", "test")}


def model_of(encoder):
    return SimpleNamespace(
        method=SimpleNamespace(image_encoder=encoder), image_size=32, resize_to=32, device=torch.device("cpu")
    )


def probe(corpus, features, cells=(Cell(),), draws=20, **options):
    """A task on features that were "extracted" already."""
    task = Classification(**options)
    task._features = lambda model, corpus, data: features
    return list(task.measure(model_of(SimpleNamespace(width=20)), corpus, cells, draws))


@pytest.mark.parametrize("protocol", ["mgca", "logistic"])
def test_a_probe_finds_what_is_there_and_nothing_else(corpus, protocol):
    names = ["effusion", "cardiomegaly", "consolidation"]
    features = {split: 10 * x for split, x in oracle_features(corpus, names, noise=0.3).items()}
    (found,) = probe(corpus, features, labels=names, protocol=protocol)
    assert found.numbers["auroc"] > 0.95
    assert found.numbers["classes_scored"] == 3
    shuffled = {split: np.random.default_rng(1).permutation(x) for split, x in features.items()}
    (found,) = probe(corpus, shuffled, labels=names, protocol=protocol)
    assert 0.35 < found.numbers["auroc"] < 0.65


def test_the_logistic_head_is_scikit_learns_at_the_best_validation_strength(corpus):
    names = ["effusion"]
    x = oracle_features(corpus, names, noise=2.0)
    y = {split: corpus.labels(names)[corpus.rows(split)] for split in x}
    data = Labelled.of(corpus, names, "corpus")
    scores = _logistic_head(x, np.arange(len(x["train"])), data)
    mean, sd = x["train"].mean(0), x["train"].std(0)
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit((x["train"] - mean) / sd, y["train"][:, 0])
        for c in (1e-3, 1e-2, 0.1, 1)
    ]
    val = [roc_auc_score(y["val"][:, 0], fit.decision_function((x["val"] - mean) / sd)) for fit in fits]
    best = fits[int(np.argmax(val))].decision_function((x["test"] - mean) / sd)
    np.testing.assert_allclose(scores[:, 0], best, atol=1e-3)


def test_the_numbers_are_scikit_learns_and_every_cell_says_what_it_was_made_from(corpus):
    names = ["effusion", "nodule"]
    cells = [Cell(0.1, 0), Cell(0.1, 1), Cell(1.0, 0)]
    found = probe(corpus, oracle_features(corpus, names, 1.0), cells, labels=names, protocol="logistic")
    again = probe(corpus, oracle_features(corpus, names, 5.0), cells, labels=names, protocol="logistic")
    rows = [measured.row() for measured in found]
    assert [(row["fraction"], row["seed"]) for row in rows] == [tuple(cell) for cell in cells]
    assert [row["subset_sha256"] for row in rows] == [measured.row()["subset_sha256"] for measured in again]
    assert len({row["subset_sha256"] for row in rows}) == 3
    train = set(corpus.to_pandas()["study_id"].iloc[corpus.rows("train")])
    for measured, row in zip(found, rows, strict=True):
        assert set(measured.subset_ids) <= train
        assert row["train_studies"] == len(measured.subset_ids)
        assert row["test_studies"] == 80
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert row["labels"] == names
    assert len(found[2].subset_ids) == 240


def test_the_interval_holds_the_mean_and_narrows_with_better_features(corpus):
    names = ["effusion", "cardiomegaly"]
    cells = [Cell(0.2, seed) for seed in range(3)]
    wide = summarise(
        probe(corpus, oracle_features(corpus, names, 3.0), cells, 300, labels=names, protocol="logistic"), "auroc"
    )
    assert wide.low < wide.mean < wide.high
    assert wide.n == 3
    sharp = summarise(
        probe(corpus, oracle_features(corpus, names, 0.2), cells, 300, labels=names, protocol="logistic"), "auroc"
    )
    assert sharp.high - sharp.low < wide.high - wide.low


def test_a_frozen_encoder_is_frozen_whole_and_in_evaluation_mode(corpus):
    encoder = ImageEncoder("small_resnet", 32)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    task = Classification(["effusion"], fractions=[1.0], epochs=2)
    (found,) = task.measure(model_of(encoder), corpus, [Cell()], 10)
    assert found.notes["epochs"] == 2
    assert not any(module.training for module in encoder.modules())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name  # BatchNorm's statistics too
    features = extract_features(encoder, Loader(corpus, corpus.rows("test"), 32, 32, batch_size=16))
    one_by_one = extract_features(encoder, Loader(corpus, corpus.rows("test"), 32, 32, batch_size=1))
    np.testing.assert_allclose(features, one_by_one, atol=1e-5)


def test_finetuning_learns_in_a_copy_and_the_same_seed_gives_the_same_bits(corpus):
    torch.manual_seed(0)
    encoder = ImageEncoder("small_resnet", 32)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    options = {"labels": ["cardiomegaly"], "encoder": "finetuned", "fractions": [1.0], "learning_rate": 2e-3}
    task = Classification(**options, epochs=6)
    (found,) = task.measure(model_of(encoder), corpus, [Cell(1.0, 3)], 10)
    (again,) = task.measure(model_of(encoder), corpus, [Cell(1.0, 3)], 10)
    assert found.numbers == again.numbers
    assert found.numbers["auroc"] > 0.65  # a frozen random encoder gives .5 to .6 here
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_feature_loader_gives_every_film_once_an_epoch():
    loader = FeatureLoader(torch.arange(10.0)[:, None], np.arange(100, 110), batch_size=4, seed=0)
    assert len(loader) == 3
    epochs = [torch.cat([loader.batch(epoch * 3 + step).rows for step in range(3)]).tolist() for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100, 110))
    assert epochs[0] != epochs[1]
    batch = loader.batch(1)
    assert torch.equal(batch.image[:, 0] + 100, batch.rows.float())


def test_the_loss_counts_known_labels_only():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, torch.nan], [0.0, 1.0]], dtype=torch.float64)
    log = lambda z: np.log(1 + np.exp(-z))  # noqa: E731
    expected = (log(2.0) + log(-0.5) + log(3.0)) / 3
    assert float(label_loss(logits, targets, exclusive=False)) == pytest.approx(expected)
    one_hot = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = (np.log(1 + np.exp(-3.0)) + np.log(1 + np.exp(-2.5))) / 2
    assert float(label_loss(logits, one_hot, exclusive=True)) == pytest.approx(expected)


def test_refusals(corpus):
    with pytest.raises(UserError, match="did you mean 'effusion'"):
        probe(corpus, {}, labels=["efusion"])
    with pytest.raises(UserError, match="unknown protocol 'mcga'"):
        Classification(["effusion"], protocol="mcga")
    with pytest.raises(UserError, match="lie in"):
        Classification(["effusion"], fractions=[10.0])
    with pytest.raises(UserError, match="takes no rates"):
        Classification(["effusion"], protocol="logistic", epochs=3)
    with pytest.raises(UserError, match="epochs must be 1 or more, got 0"):
        Classification(["effusion"], epochs=0)


def test_films_of_unknown_class_are_left_out_and_not_the_first_class(corpus):
    names = ["effusion", "nodule"]
    before = Labelled.of(corpus, names, "corpus")
    hidden = before.rows["train"][::2]
    values = corpus.labels(names).copy()
    values[:, 1] = 1 - values[:, 0]
    values[hidden] = np.nan
    masked = copy.copy(corpus)
    masked.labels = lambda names: values.copy()
    masked.label_groups = {"kind": names}
    data = Labelled.of(masked, ["kind"], "corpus")
    assert data.exclusive
    assert data.labels.names == names
    assert not set(data.rows["train"]) & set(hidden)
    assert len(data.rows["train"]) == len(before.rows["train"]) - len(hidden)
    assert len(data.rows["test"]) == len(before.rows["test"])


def test_a_test_split_without_two_sides_cannot_be_scored(corpus):
    flat = copy.copy(corpus)
    flat.labels = lambda names: np.ones((len(corpus), len(names)), dtype=np.float32)
    with pytest.raises(UserError, match="no label has both positive and negative test studies, so none can be scored"):
        Labelled.of(flat, ["effusion"], "corpus")
    one = corpus.labels(["effusion", "nodule"]).copy()
    one[:, 1] = 0
    half = copy.copy(corpus)
    half.labels = lambda names: one.copy()
    x = oracle_features(corpus, ["effusion", "nodule"], noise=0.5)
    (found,) = probe(half, x, labels=["effusion", "nodule"], protocol="logistic")
    assert found.numbers["classes_scored"] == 1  # left out of the mean, not counted as 0
    said = f"not scored, because they lack positive or negative studies: nodule (0 positive, {len(x['test'])} negative)"
    assert said in found.notes["remarks"]
    untaught = f"trained without positive or without negative studies: nodule (0 positive, {len(x['train'])} negative)"
    assert untaught in found.notes["remarks"]
    scores = _logistic_head(x, np.arange(len(x["train"])), Labelled.of(half, ["effusion", "nodule"], "corpus"))
    auroc = roc_auc_score(one[corpus.rows("test"), 0], scores[:, 0])
    assert found.numbers["auroc"] == pytest.approx(auroc)


def test_labels_that_a_small_subset_does_not_show_take_the_side_that_it_shows(corpus):
    names = ["effusion", "nodule"]
    x = oracle_features(corpus, names, noise=0.5)
    data = Labelled.of(corpus, names, "corpus")
    train = data.targets[data.rows["train"]]
    (with_nodule,) = (np.flatnonzero(train[:, 1] == 1)[:6],)
    scores = _logistic_head(x, with_nodule, data)
    assert (scores[:, 1] > 0).all()
    assert len(set(scores[:, 1])) == 1
    data.labels.exclusive = True
    only = np.flatnonzero((train == [0, 1]).all(1))[:6]
    assert (_logistic_head(x, only, data).argmax(1) == 1).all()
