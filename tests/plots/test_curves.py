"""The figures that are lines: loss terms, validation, shares of the labels."""

import numpy as np

from lingula.plots.label_fractions import label_fractions
from lingula.plots.loss_terms import loss_term, stage_spans, term_names
from lingula.plots.validation import validation_retrieval

ROWS = [
    {"step": 20, "stage": 1, "train/global": 3.0, "train/gradient_norm": 9.0},
    {"step": 40, "stage": 1, "train/global": 2.0, "train/gradient_norm": 9.0},
    {"step": 40, "val/recall_at_5": 0.2, "val/chance_at_5": 0.025, "val/ceiling_at_5": 0.8},
    {"step": 60, "stage": 2, "train/global": 1.0, "train/reconstruction": 5.0},
    {"step": 60, "val/recall_at_5": 0.4, "val/chance_at_5": 0.025, "val/ceiling_at_5": 0.8},
]


def test_terms_and_stages():
    assert term_names(ROWS) == ["global", "reconstruction"]
    assert stage_spans(ROWS) == [(1, 0, 40), (2, 40, 60)]
    assert stage_spans([]) == []


def test_a_term_is_drawn_where_its_stage_has_it():
    whole, late = (loss_term(ROWS, name).axes[0] for name in ("global", "reconstruction"))
    assert [line.get_xydata().tolist() for line in whole.lines] == [[[20, 3], [40, 2]], [[60, 1]]]
    assert [line.get_xydata().tolist() for line in late.lines] == [[[60, 5]]]
    assert whole.get_xlim() == late.get_xlim()  # so that the panels can be compared
    (shaded,) = whole.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == (40, 60)
    assert [text.get_text() for text in whole.texts] == ["stage 1", "stage 2"]


def test_one_stage_needs_no_shade():
    axes = loss_term(ROWS[:2], "global").axes[0]
    assert not axes.patches
    assert not axes.texts


def test_validation_between_chance_and_ceiling():
    axes = validation_retrieval(ROWS).axes[0]
    found = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(found) == ["film to report", "ceiling 0.80", "chance 0.03"]
    assert list(found["film to report"]) == [0.2, 0.4]
    assert set(found["ceiling 0.80"]) == {0.8}
    assert validation_retrieval(ROWS[:2]) is None


def test_label_fractions_in_order_with_their_intervals():
    def row(mean):
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.05, "train_studies": 1000}

    found = {"1.0": {"m": row(0.9), "random": row(0.7)}, "0.01": {"m": row(0.8), "random": {"mean": 0.6}}}
    axes = label_fractions(found).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1%\n1,000 films", "100%\n1,000 films"]
    own, random = axes.containers
    assert list(own.lines[0].get_ydata()) == [0.8, 0.9]
    assert list(random.lines[0].get_ydata()) == [0.6, 0.7]
    low, high = own.lines[2][0].get_segments()[0][:, 1]
    assert np.allclose([low, high], [0.7, 0.85])
