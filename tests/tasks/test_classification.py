"""The linear probe: subsets, heads and intervals against known truth."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.nn.image_encoders import ImageEncoder
from lingula.registry import UserError
from lingula.tasks.classification import LinearProbe, _logistic_head, draw_subset, extract_features, id_hash


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


@pytest.mark.parametrize("protocol", ["mgca", "logistic"])
def test_a_probe_finds_what_is_there_and_nothing_else(corpus, protocol):
    names = ["effusion", "cardiomegaly", "consolidation"]
    probe = LinearProbe(corpus, names, protocol, fractions=(1.0,), seeds=(0,))
    features = oracle_features(corpus, names, noise=0.3)
    (row,) = probe.run({split: 10 * x for split, x in features.items()})
    assert row["auroc"] > 0.95
    shuffled = {split: np.random.default_rng(1).permutation(x) for split, x in features.items()}
    (row,) = probe.run(shuffled)
    assert 0.35 < row["auroc"] < 0.65


def test_the_logistic_head_is_scikit_learns_at_the_best_validation_strength(corpus):
    names = ["effusion"]
    x = oracle_features(corpus, names, noise=2.0)
    y = {split: corpus.labels(names)[corpus.rows(split)] for split in x}
    scores = _logistic_head(x["train"], y["train"], x["val"], y["val"], x["test"], exclusive=False)
    mean, sd = x["train"].mean(0), x["train"].std(0)
    fits = [
        LogisticRegression(C=c, max_iter=1000).fit((x["train"] - mean) / sd, y["train"][:, 0])
        for c in (1e-3, 1e-2, 0.1, 1)
    ]
    val = [roc_auc_score(y["val"][:, 0], fit.decision_function((x["val"] - mean) / sd)) for fit in fits]
    best = fits[int(np.argmax(val))].decision_function((x["test"] - mean) / sd)
    np.testing.assert_allclose(scores[:, 0], best, atol=1e-3)


def test_subsets_are_drawn_by_patient_seeded_and_stratified():
    rng = np.random.default_rng(0)
    patients = np.array([f"p{n // 2}" for n in range(400)])
    labels = np.zeros((400, 3))
    labels[rng.permutation(400)[:6], 0] = 1  # a rare one
    labels[rng.permutation(400)[:200], 1] = 1
    subset = draw_subset(patients, labels, 0.1, seed=0)
    drawn = set(patients[subset])
    assert all(
        (patients == patient).sum() == (patients[subset] == patient).sum() for patient in drawn
    )  # whole patients
    assert 15 <= len(drawn) <= 25
    assert labels[subset, 0].sum() >= 1  # the rare label is there
    assert abs(labels[subset, 1].mean() - 0.5) < 0.2
    assert np.array_equal(subset, draw_subset(patients, labels, 0.1, seed=0))
    assert not np.array_equal(subset, draw_subset(patients, labels, 0.1, seed=1))
    assert np.array_equal(draw_subset(patients, labels, 1.0, seed=5), np.arange(400))


def test_both_encoders_get_the_same_subsets_and_ids_are_written_out(corpus):
    names = ["effusion", "nodule"]
    rows = [
        list(LinearProbe(corpus, names, "logistic", (0.1,), (0, 1)).run(oracle_features(corpus, names, n)))
        for n in (1, 5)
    ]
    assert [row["subset_sha256"] for row in rows[0]] == [row["subset_sha256"] for row in rows[1]]
    assert rows[0][0]["subset_sha256"] != rows[0][1]["subset_sha256"]
    assert rows[0][0]["subset_sha256"] == id_hash(rows[0][0]["subset_ids"][::-1])
    assert set(rows[0][0]["subset_ids"]) <= set(corpus.index["study_id"].iloc[corpus.rows("train")])


def test_the_interval_holds_the_mean_and_narrows_with_better_features(corpus):
    names = ["effusion", "cardiomegaly"]
    probe = LinearProbe(corpus, names, "logistic", (0.2,), (0, 1, 2))
    summary = probe.summarise(list(probe.run(oracle_features(corpus, names, noise=3.0))), draws=300)
    assert summary["low"] < summary["mean"] < summary["high"]
    assert summary["seeds"] == [0, 1, 2]
    sharp = probe.summarise(list(probe.run(oracle_features(corpus, names, noise=0.2))), draws=300)
    assert sharp["high"] - sharp["low"] < summary["high"] - summary["low"]


def test_the_encoder_is_frozen_whole_and_in_evaluation_mode(corpus):
    encoder = ImageEncoder("small_resnet", 32)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    features = extract_features(encoder, Loader(corpus, corpus.rows("test"), 32, 32, batch_size=16))
    assert not any(module.training for module in encoder.modules())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name  # BatchNorm's statistics too
    one_by_one = extract_features(encoder, Loader(corpus, corpus.rows("test"), 32, 32, batch_size=1))
    np.testing.assert_allclose(features, one_by_one, atol=1e-5)


def test_refusals(corpus):
    with pytest.raises(UserError, match="did you mean 'effusion'"):
        LinearProbe(corpus, ["efusion"])
    with pytest.raises(UserError, match="unknown protocol 'mcga'"):
        LinearProbe(corpus, ["effusion"], protocol="mcga")
    with pytest.raises(UserError, match="lie in"):
        LinearProbe(corpus, ["effusion"], fractions=(10.0,))


def test_accuracy_counts_known_labels_or_classes(corpus):
    probe = LinearProbe(corpus, ["effusion", "nodule"])
    targets = np.array([[1, 0], [0, np.nan], [1, 1]], dtype=float)
    scores = np.array([[2.0, 1.0], [-1.0, 5.0], [-1.0, 3.0]])
    assert probe._accuracy(targets, scores)[0] == pytest.approx(3 / 5)
    weighted = probe._accuracy(targets, scores, np.array([[2, 0, 1], [0, 3, 0]]))
    np.testing.assert_allclose(weighted, [(2 * 1 + 1 * 1) / 6, 1.0])
    probe.exclusive = True
    assert probe._accuracy(np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 1, 1]])[0] == pytest.approx(2 / 3)


def test_films_of_unknown_class_are_left_out_and_not_the_first_class(corpus):
    names = ["effusion", "nodule"]
    probe = LinearProbe(corpus, names)
    before = {split: len(rows) for split, rows in probe.rows.items()}
    hidden = probe.rows["train"][::2]
    values = corpus.labels(names).copy()
    values[hidden] = np.nan
    masked = copy.copy(corpus)
    masked.labels = lambda names: values
    masked.label_groups = {"kind": names}
    probe = LinearProbe(masked, names)
    assert probe.exclusive
    assert not set(probe.rows["train"]) & set(hidden)
    assert len(probe.rows["train"]) == before["train"] - len(hidden)
    assert len(probe.rows["test"]) == before["test"]
