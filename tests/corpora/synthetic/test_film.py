"""The renderer: what is said to be on the film can be seen there, inside its mask, on its side, and can be learned."""

import itertools

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lingula.corpora.synthetic import FINDINGS, Finding, generate, render
from lingula.corpora.synthetic.chest import make_chest
from lingula.corpora.synthetic.film import draw_mask
from lingula.corpora.synthetic.findings import EACH, FURTHER, KINDS
from lingula.registry import UserError

EVERY = [
    Finding(name, side, zone, size)
    for name, kind in {**KINDS, **FURTHER}.items()
    for side, zone, size in itertools.product(kind.sides, kind.zones, kind.sizes)
] + [Finding("atelectasis", "left", "upper")]
WHOLE_CHEST = ("hypoinflation",)  # it moves the heart as well


def truth(finding: Finding, seed: int, size: int):
    """Mask and boxes as on the film, without drawing it."""
    regions = make_chest([finding], (seed,), (seed, 0)).regions()
    return np.any([draw_mask(region, size) for region in regions], axis=0), [region.box(size) for region in regions]


def pair(finding: Finding, seed: int, size: int):
    """The same chest with and without a finding."""
    return render([finding], seed, size, view="PA"), render([], seed, size, view="PA")


@pytest.mark.parametrize("finding", EVERY, ids=lambda finding: finding.meaning)
@pytest.mark.parametrize("size", [96, 224])
def test_a_finding_changes_the_film_inside_its_mask(finding, size):
    for seed in (1, 2) if size == 96 else (3,):
        film, without = pair(finding, seed, size)
        mask = film.masks[finding.name]
        assert mask.shape == film.pixels.shape == (size, size)
        assert mask.any()
        difference = np.abs(film.pixels.astype(float) - without.pixels)
        inside, outside = difference[mask].mean(), difference[~mask].mean()
        assert inside > 4.0, f"only {inside:.1f} grey levels"
        times = 1 if finding.name in WHOLE_CHEST else 3
        assert inside > times * outside, f"{inside:.1f} inside, {outside:.1f} outside"
        for box in film.boxes:
            assert 0 <= box.x0 < box.x1 <= size
            assert 0 <= box.y0 < box.y1 <= size


@pytest.mark.parametrize("name", [name for name in FINDINGS if KINDS[name].may_be_uncertain])
def test_an_uncertain_finding_is_fainter_but_there(name):
    kind = KINDS[name]
    sure = Finding(name, kind.sides[0], kind.zones[0], kind.sizes[-1])
    unsure = Finding(name, kind.sides[0], kind.zones[0], kind.sizes[-1], certain=False)
    strength = []
    for finding in (sure, unsure):
        film, without = pair(finding, 5, 96)
        strength.append(np.abs(film.pixels.astype(float) - without.pixels)[film.masks[name]].mean())
    assert 3.0 < strength[1] < 0.95 * strength[0]


@pytest.mark.parametrize("size", [64, 97, 224])
def test_boxes_are_tight_around_their_masks(size):
    for finding in EVERY:
        mask, boxes = truth(finding, 7, size)
        rows, columns = np.nonzero(mask)
        box = [min(b.x0 for b in boxes), min(b.y0 for b in boxes)]
        box += [max(b.x1 for b in boxes), max(b.y1 for b in boxes)]
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.subtract(box, tight)).max() <= 1, (finding.meaning, box, tight)
        both = finding.side == "bilateral" or finding.name in ("oedema", "hyperinflation", "hypoinflation")
        assert len(boxes) == (2 if both else 1)


def test_a_film_carries_these_masks_and_boxes():
    for finding in EVERY[::7]:
        film = render([finding], 7, 64)
        mask, boxes = truth(finding, 7, 64)
        assert np.array_equal(film.masks[finding.name], mask)
        assert list(film.boxes) == boxes


def test_the_patients_left_is_on_the_right_of_the_film():
    for finding in EVERY:
        if finding.side not in ("left", "right") or finding.name in FURTHER:  # some of these lie near the middle
            continue
        for seed in range(3):
            columns = np.nonzero(truth(finding, seed, 96)[0])[1]
            # A line or a lead ends in the middle: its start tells the side.
            edge = columns.max() if finding.side == "left" else columns.min()
            far = (edge - 48 if finding.side == "left" else 48 - edge) / 48
            assert far > 0.2, finding
            if finding.name not in ("central_line", "pacemaker"):
                assert (columns.mean() > 48) == (finding.side == "left"), finding
                assert np.mean((columns > 45) == (finding.side == "left")) > 0.8


@pytest.mark.parametrize("name", [name for name, kind in FURTHER.items() if kind.sides == EACH])
def test_a_further_finding_lies_on_its_side(name):
    kind = FURTHER[name]
    for side, zone in itertools.product(kind.sides, kind.zones):
        film = render([Finding(name, side, zone, kind.sizes[-1])], 4, 96, view="PA")
        x = np.nonzero(film.masks[name])[1].mean()
        assert (x > 48) == (side == "left"), f"the patient's {side} is on the other side of the film, got x = {x:.0f}"


def test_zones_and_sizes_are_ordered():
    for name in ("nodule", "consolidation", "granuloma", "rib_fracture", "endotracheal_tube"):
        kind = KINDS[name]
        heights = []
        for zone in ("upper", "mid", "lower"):
            mask, _ = truth(Finding(name, kind.sides[0], zone, kind.sizes[0]), 3, 96)
            heights.append(np.nonzero(mask)[0].max())
        assert heights[0] < heights[1] < heights[2], name
    for name in ("effusion", "pneumothorax", "consolidation", "oedema", "cardiomegaly", "nodule"):
        kind = KINDS[name]
        areas = [truth(Finding(name, kind.sides[0], kind.zones[0], size), 3, 96)[0].sum() for size in kind.sizes]
        assert all(a < b for a, b in itertools.pairwise(areas)), name


def test_size_only_scales_the_film():
    large, small = generate(0, 5, 224).film, generate(0, 5, 112).film
    shrunk = cv2.resize(large.pixels, (112, 112), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(shrunk.ravel(), small.pixels.ravel())[0, 1] > 0.98
    for a, b in zip(large.boxes, small.boxes, strict=True):
        assert abs(a.x0 / 2 - b.x0) <= 1
        assert abs(a.y1 / 2 - b.y1) <= 1


def test_a_linear_probe_on_32_pixels_finds_a_large_effusion():
    films, labels = [], []
    for seed in range(200):
        findings = [Finding("effusion", "left" if seed % 4 else "right", size="large")] if seed % 2 else []
        films.append(
            cv2.resize(render(findings, seed, 64).pixels, (32, 32), interpolation=cv2.INTER_AREA).ravel() / 255
        )
        labels.append(seed % 2)
    probe = LogisticRegression(C=0.1, max_iter=200).fit(films[:100], labels[:100])
    assert roc_auc_score(labels[100:], probe.decision_function(films[100:])) > 0.9


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        (Finding("efusion", "left", size="small"), "unknown finding 'efusion'; did you mean 'effusion'"),
        (Finding("effusion", "lft", size="small"), "effusion: unknown side 'lft'.*did you mean 'left'"),
        (Finding("nodule", "left", "uper", "small"), "nodule: unknown zone 'uper'.*did you mean 'upper'"),
        (Finding("effusion", "left", size="smal"), "effusion: unknown size 'smal'.*did you mean 'small'"),
        (Finding("effusion", "left"), "effusion: unknown size ''.*small, moderate, large"),
        (Finding("cardiomegaly", "left", size="small"), "cardiomegaly: unknown side 'left', expected none"),
    ],
)
def test_render_refuses_a_finding_it_cannot_draw(finding, message):
    with pytest.raises(UserError, match=message):
        render([finding], 0, 96)


def test_render_refuses_the_same_finding_twice_and_an_unknown_view():
    nodule = Finding("nodule", "left", "upper", "small")
    with pytest.raises(UserError, match="nodule twice"):
        render([nodule, nodule], 0, 96)
    with pytest.raises(UserError, match="unknown view 'lateral', expected PA or AP"):
        render([nodule], 0, 96, view="lateral")


def test_a_generator_draws_another_chest_each_time():
    rng = np.random.default_rng(0)
    first, second = render([], rng, 64), render([], rng, 64)
    assert not np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.pixels, render([], np.random.default_rng(0), 64).pixels)
