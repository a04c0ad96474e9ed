"""Labels by name, by group, and what uncertain and unknown ones are taken for."""

import copy

import numpy as np
import pytest

from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.labels import Labels, _listed
from lingula.registry import UserError


@pytest.fixture
def corpus(tiny_corpus):
    return copy.copy(PreparedCorpus.open(tiny_corpus))


def test_uncertain_and_unknown_labels_follow_the_corpuss_protocol_or_count_for_nothing(corpus):
    names = ["effusion", "nodule"]
    values = corpus.labels(names).copy()
    values[:4] = [[-1, -1], [np.nan, np.nan], [1, 0], [0, 1]]
    other = copy.copy(corpus)
    other.labels = lambda names: values.copy()
    other.uncertain_as, other.unknown_as = {"effusion": 1.0}, {"nodule": 0.0}
    by_corpus = Labels.of(other, names, "corpus").targets[:4]
    np.testing.assert_array_equal(by_corpus, [[1, np.nan], [np.nan, 0], [1, 0], [0, 1]])
    unknown = Labels.of(other, names, "unknown").targets[:4]
    np.testing.assert_array_equal(unknown, [[np.nan, np.nan], [np.nan, np.nan], [1, 0], [0, 1]])


def test_names_groups_and_all(corpus):
    assert Labels.of(corpus, []).names == corpus.label_names
    assert not Labels.of(corpus, []).exclusive
    corpus.label_groups = {"kind": ["effusion", "nodule"]}
    kind = Labels.of(corpus, ["kind"])
    assert (kind.names, kind.exclusive) == (["effusion", "nodule"], True)
    assert Labels.of(corpus, ["nodule", "effusion"]).exclusive  # the whole group, in another order
    assert not Labels.of(corpus, ["nodule"]).exclusive
    with pytest.raises(UserError, match="did you mean 'effusion'"):
        Labels.of(corpus, ["efusion"])


def test_known_studies_have_a_label_of_theirs(corpus):
    values = corpus.labels(["effusion", "nodule"]).copy()
    values[[1, 5]] = np.nan
    values[2, 0] = np.nan
    corpus.labels = lambda names: values.copy()
    assert set(range(len(corpus))) - set(Labels.of(corpus, ["effusion", "nodule"]).known) == {1, 5}


def test_a_film_of_no_class_or_of_two_is_of_unknown_class(corpus):
    values = corpus.labels(["effusion", "nodule"]) * 0
    values[:, 0] = 1
    values[0] = [0, 0]
    values[1] = [0, np.nan]
    values[2] = [1, 1]
    values[3] = [-1, 0]
    values[4] = [np.nan, 1]
    corpus.labels = lambda names: values.copy()
    assert len(Labels.of(corpus, ["effusion", "nodule"]).known) == len(corpus)  # as labels of their own all count
    corpus.label_groups = {"kind": ["effusion", "nodule"]}
    assert set(range(len(corpus))) - set(Labels.of(corpus, ["kind"]).known) == {0, 1, 2, 3}


def test_labels_with_too_few_on_a_side_are_named_with_their_counts(corpus):
    values = np.zeros((len(corpus), 4), dtype=np.float32)
    values[:5, 0] = 1  # just enough
    values[:4, 1] = 1
    values[:, 2] = np.nan
    values[:, 3] = 1
    labels = Labels(["a", "b", "c", "d"], False, values)
    rows = np.arange(20)
    none = "c (0 positive, 0 negative), d (20 positive, 0 negative)"
    assert labels.few(rows) == [
        f"not scored, because they lack positive or negative studies: {none}",
        "fewer than 5 positive or negative studies, so that the 95 % intervals are not to be trusted: "
        "b (4 positive, 16 negative)",
    ]
    assert labels.untaught(rows) == [f"trained without positive or without negative studies: {none}"]
    labels.check_test(corpus, rows)
    assert Labels(["a"], False, values[:, :1]).few(rows) == []
    with pytest.raises(UserError, match=r"no label has both positive and negative val .*: c \(0 positive, 0 neg"):
        Labels(["c", "d"], False, values[:, 2:]).check_test(corpus, rows, "val")
    assert _listed({str(n): (1, 0) for n in range(9)}).endswith("5 (1 positive, 0 negative) and 3 more")
