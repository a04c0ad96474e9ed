"""What every task shares: subsets, patients, intervals, comparisons."""

import numpy as np
import pytest
from scipy import stats

from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.statistics import compare, few_patients, mean_replicates, patient_draws, summarise
from lingula.evaluation.studies import draw_subset, labelled_rows, patients_of, reported_rows, split_rows
from lingula.evaluation.task import Cell, Measured, cells_of
from lingula.metrics.bootstrap import bootstrap_weights, interval
from lingula.records import id_hash
from lingula.registry import UserError


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


def test_ids_hash_as_sets():
    import hashlib

    assert id_hash(["b", "a"]) == id_hash(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()[:16]
    assert id_hash(["a", "b"]) != id_hash(["a", "c"])


def test_cells():
    assert cells_of([0.1, 1.0], [0, 5]) == [Cell(0.1, 0), Cell(0.1, 5), Cell(1.0, 0), Cell(1.0, 5)]
    for fraction in (0.0, 1.1, -1.0):
        with pytest.raises(UserError, match="lie in"):
            cells_of([fraction], [0])
    with pytest.raises(UserError, match=r"named twice: 0\.1, 0\.1"):
        cells_of([0.1, 0.1], [0])


def test_a_split_without_labelled_studies_is_named(tiny_corpus):
    corpus = PreparedCorpus.open(tiny_corpus)
    rows = labelled_rows(corpus, np.arange(0, 48, 2), "masks")
    assert {split: len(own) for split, own in rows.items()} == {"train": 12, "val": 4, "test": 8}
    with pytest.raises(UserError, match=r"has no val studies with masks \(it has 24 train, 0 val, 0 test\);"):
        labelled_rows(corpus, corpus.rows("train"), "masks")


def test_a_split_without_what_a_task_needs_names_the_one_that_has_it(tiny_corpus):
    corpus = PreparedCorpus.open(tiny_corpus)
    assert reported_rows(corpus, "val").tolist() == corpus.rows("val").tolist()
    assert split_rows(corpus, "test", np.arange(0, 48, 2), "boxes").tolist() == list(range(32, 48, 2))
    with pytest.raises(UserError, match=r"has no test studies with boxes; val has 3: give --split val$"):
        split_rows(corpus, "test", np.array([0, 24, 25, 26]), "boxes")
    with pytest.raises(UserError, match=r"has no val studies with boxes$"):
        split_rows(corpus, "val", np.array([0]), "boxes")


def test_few_patients_are_told(tiny_corpus):
    corpus = PreparedCorpus.open(tiny_corpus)
    patients = patients_of(corpus, np.arange(len(corpus)))
    first = np.array([np.flatnonzero(patients == patient)[0] for patient in dict.fromkeys(patients)])
    assert few_patients(corpus, first[:30]) == []
    own = np.flatnonzero(np.isin(patients, patients[first[:29]]))
    said = "measured on 29 patients, fewer than 30: the 95 % intervals are not to be trusted"
    assert few_patients(corpus, own) == [said]
    assert few_patients(corpus, own[:1])[0].startswith("measured on 1 patient, ")


def test_draws_are_the_same_for_every_encoder_and_of_whole_patients(tiny_corpus):
    corpus = PreparedCorpus.open(tiny_corpus)
    rows = corpus.rows("test")
    weights = patient_draws(corpus, rows, 50)
    np.testing.assert_array_equal(weights, patient_draws(corpus, rows, 50))
    patients = corpus.to_pandas()["patient_id"].to_numpy()[rows]
    for patient in set(patients):
        own = weights[:, patients == patient]
        assert (own == own[:, :1]).all()


def test_replicates_of_a_mean_are_means_of_the_drawn_samples():
    values = np.array([1.0, np.nan, 3.0])
    weights = np.array([[1.0, 1, 1], [2, 0, 1], [0, 3, 0]])
    np.testing.assert_allclose(mean_replicates(values, weights), [2.0, 5 / 3, np.nan])


def measured(value, replicates, cell=None, test="t"):
    return Measured({"dice": value}, {"dice": np.asarray(replicates)}, {"test_sha256": test}, cell)


def test_a_summary_holds_the_luck_of_test_and_seed():
    one = summarise([measured(0.5, np.linspace(0.4, 0.6, 1001))], "dice")
    assert one.sd is None
    assert (one.low, one.high) == pytest.approx((0.405, 0.595))
    assert str(one) == "0.500 (0.405-0.595)"
    values = [0.50, 0.53, 0.58, 0.59]  # seeds alone: the interval of a t-test
    four = summarise([measured(value, [value] * 20_000) for value in values], "dice")
    assert four.mean == pytest.approx(0.55)
    assert four.sd == pytest.approx(np.std(values, ddof=1))
    expected = stats.t(3, 0.55, four.sd / 2).interval(0.95)
    assert (four.low, four.high) == pytest.approx(expected, abs=0.005)
    both = summarise([measured(v, v + 0.05 * np.random.default_rng(0).normal(size=20_000)) for v in values], "dice")
    assert both.high - both.low > four.high - four.low > 3 * four.sd
    nothing = summarise([Measured({"dice": 0.3})], "dice")
    assert str(nothing) == "0.300"


def test_two_encoders_are_compared_draw_by_draw_and_seed_by_seed():
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(3, 2000))  # of patients and seeds: the same for both
    cells = [Cell(0.1, seed) for seed in range(3)]
    a = [measured(0.60 + s / 10, 0.60 + luck[s], c) for s, c in enumerate(cells)]
    b = [measured(0.55 + s / 10, 0.55 + luck[s] + rng.normal(0, 0.01, 2000), c) for s, c in enumerate(cells)]
    better = compare(a, b, "dice")
    assert better.mean == pytest.approx(0.05)
    assert 0.02 < better.low < 0.05 < better.high < 0.08
    assert better.p == pytest.approx(2 / 2001)
    same = compare(a, a, "dice")
    assert (same.mean, same.p) == (0, 1)
    other_seeds = [measured(c.numbers["dice"], c.replicates["dice"], Cell(0.1, s + 7)) for s, c in enumerate(b)]
    assert compare(a, other_seeds, "dice").p > 0.5  # unpaired, the luck does not cancel
    with pytest.raises(ValueError, match="same test studies only"):
        compare(a, [measured(0.5, [0.5], test="another")], "dice")


def test_the_p_of_a_comparison_is_that_of_chance_where_there_is_no_difference():
    """Under no difference p is about uniform: 5 % of the comparisons are below .05."""
    rng = np.random.default_rng(1)
    below = 0
    for _ in range(200):
        x = rng.normal(size=60)
        weights = rng.multinomial(60, np.full(60, 1 / 60), size=400)
        replicates = weights @ x / 60
        below += compare([measured(x.mean(), replicates)], [measured(0.0, np.zeros(400))], "dice").p < 0.05
    assert 2 <= below <= 22


@pytest.mark.parametrize("paired", [True, False])
def test_the_luck_of_three_seeds_is_not_taken_for_a_difference(paired):
    """Two equal encoders on a large test: 5 % of the comparisons are below .05, and as many intervals miss 0."""
    rng = np.random.default_rng(2)
    below = missed = 0
    for _ in range(300):
        test = rng.normal(0, 0.002, 400)
        values = 0.7 + rng.normal(0, 0.02, (2, 3))
        a, b = (
            [measured(v, v + test, Cell(0.01, seed + 3 * (who and not paired))) for seed, v in enumerate(values[who])]
            for who in range(2)
        )
        found = compare(a, b, "dice")
        below += found.p < 0.05
        missed += not found.low <= 0 <= found.high
    assert below <= 30
    assert missed <= 30
    assert below >= 2


def test_a_row_says_where_it_belongs():
    row = measured(0.5, [0.4, 0.6], Cell(0.1, 3)).row()
    assert (row["fraction"], row["seed"], row["dice"], row["test_sha256"]) == (0.1, 3, 0.5, "t")
    assert 0.4 <= row["dice_low"] <= row["dice_high"] <= 0.6
    assert "fraction" not in measured(0.5, [0.5]).row()
    assert "subset_sha256" not in row
    with_subset = Measured({}, cell=Cell(), subset_ids=["b", "a"]).row()
    assert with_subset["subset_sha256"] == id_hash(["a", "b"])


def test_the_interval_of_a_mean_is_that_of_the_normal_law_and_wider_for_patients_with_copies():
    values = np.random.default_rng(0).normal(size=900)
    low, high = interval(mean_replicates(values, bootstrap_weights(np.arange(900), 4000, seed=0)))
    half = 1.96 * values.std() / 30
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.006)
    copied = np.repeat(values[:225], 4)  # 900 samples, 225 patients: twice as wide
    low, high = interval(mean_replicates(copied, bootstrap_weights(np.repeat(np.arange(225), 4), 4000, seed=0)))
    np.testing.assert_allclose(high - low, 2 * 1.96 * copied.std() / 15, atol=0.02)
