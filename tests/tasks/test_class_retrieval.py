"""Retrieval by class, on a method that knows the findings of its films, or nothing."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingula.evaluation.studies import ids_of
from lingula.evaluation.task import Cell
from lingula.registry import UserError
from lingula.tasks.class_retrieval import ClassRetrieval

LABELS = ["cardiomegaly", "consolidation", "effusion"]


def model_of(loader, method):
    method.text_encoder = SimpleNamespace(max_tokens=512)
    return SimpleNamespace(
        method=method,
        tokenizer=loader.tokenizer,
        image_size=64,
        resize_to=64,
        batch_size=12,
        device=torch.device("cpu"),
    )


@pytest.fixture
def knows_labels(loader, oracle_class):
    oracle = oracle_class(loader)
    labels = torch.from_numpy(loader.corpus.labels(LABELS))
    oracle._content = lambda rows: labels[torch.as_tensor(rows)] + 1e-3
    return model_of(loader, oracle)


def test_an_oracle_of_classes_is_right_and_a_blind_method_is_chance(loader, oracle_class, knows_labels):
    task = ClassRetrieval(LABELS, per_class=3)
    (found,) = task.measure(knows_labels, loader.corpus, [Cell()], 50)
    assert found.numbers["precision_at_1"] == found.numbers["report_to_film_precision_at_1"] == 1.0
    assert found.numbers["precision_at_5"] == pytest.approx(3 / 5)  # there are three of a class
    assert found.numbers["chance"] == pytest.approx(1 / 3)
    assert found.numbers["films"] == 9
    assert "precision_at_10" not in found.numbers  # nine candidates
    blind = oracle_class(loader)
    blind._content = lambda rows: torch.ones(len(rows), len(blind.code))
    (found,) = task.measure(model_of(loader, blind), loader.corpus, [Cell()], 50)
    assert found.numbers["precision_at_5"] == pytest.approx(1 / 3)
    row = found.row()
    assert row["precision_at_5_low"] <= row["precision_at_5"] <= row["precision_at_5_high"]


def test_the_films_have_one_of_the_labels_and_are_the_same_for_a_seed(loader):
    corpus = loader.corpus
    rows, classes = ClassRetrieval(LABELS, per_class=3).draw(corpus)
    labels = corpus.labels(LABELS)[rows]
    assert (labels.sum(1) == 1).all()
    np.testing.assert_array_equal(labels.argmax(1), classes)
    assert np.bincount(classes).tolist() == [3, 3, 3]
    assert set(rows) <= set(corpus.rows("test"))
    again, _ = ClassRetrieval(LABELS, per_class=3).draw(corpus)
    other, _ = ClassRetrieval(LABELS, per_class=3, seed=1).draw(corpus)
    assert ids_of(corpus, rows) == ids_of(corpus, again) != ids_of(corpus, other)


def test_refusals(loader):
    with pytest.raises(UserError, match=r"there are too few of: cardiomegaly .*; give --per_class (\d+)$") as refused:
        ClassRetrieval(LABELS, per_class=40).draw(loader.corpus)
    ClassRetrieval(LABELS, per_class=int(str(refused.value).rpartition(" ")[2])).draw(loader.corpus)  # what it advises
    nowhere = copy.copy(loader.corpus)
    nowhere.labels = lambda names, rows=None: loader.corpus.labels(names, rows) * (np.arange(len(names)) != 1)
    with pytest.raises(UserError, match=f"give --labels {LABELS[0]} {LABELS[2]}$"):
        ClassRetrieval(LABELS, per_class=1).draw(nowhere)
    nowhere.labels = lambda names, rows=None: loader.corpus.labels(names, rows) * (np.arange(len(names)) == 1)
    with pytest.raises(UserError, match=r"no two classes have test studies of them alone$"):
        ClassRetrieval(LABELS, per_class=1).draw(nowhere)
    with pytest.raises(UserError, match="needs two classes or more"):
        ClassRetrieval(["effusion"]).draw(loader.corpus)
    with pytest.raises(UserError, match="per_class must be at least 1"):
        ClassRetrieval(LABELS, per_class=0)
