"""Phrase grounding, on attention whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from lingula.evaluation.task import Cell
from lingula.registry import UserError
from lingula.tasks.grounding import Grounding, Look, boxes_of_batch, cells_touched, pixels_inside, score, upsample

GRID = (8, 8)
SIZE = 64


def test_cells_touched_by_boxes():
    assert cells_touched(np.array([0, 0, 8, 8]), (8, 8), 64).nonzero()[0].tolist() == [0]
    assert cells_touched(np.array([7.9, 0, 8.1, 8]), (8, 8), 64).nonzero()[0].tolist() == [0, 1]
    assert cells_touched(np.array([0, 0, 64, 64]), (8, 8), 64).all()
    assert not cells_touched(np.array([-20, 0, -1, 9]), (8, 8), 64).any()  # cropped away


def model_of(loader, choose, tokenizer=None, film_rows=None):
    """A model whose sentences look where ``choose(cells that their box touches)`` says."""

    def attention_maps(images, reports):
        weights = torch.zeros(reports.sentence_count, GRID[0] * GRID[1])
        counts = torch.bincount(reports.report_of_sentence, minlength=len(images))
        rows = np.searchsorted(loader.tokens.first_sentence, reports.sentence_key.numpy(), side="right") - 1
        for place, _, box in boxes_of_batch(loader, torch.from_numpy(np.unique(rows)), counts):
            weights[place] = choose(torch.from_numpy(cells_touched(box, GRID, SIZE)))
        return weights.unflatten(1, GRID)

    method = SimpleNamespace(
        eval=lambda: None,
        attention_maps=attention_maps,
        image_encoder=SimpleNamespace(grid=GRID),
        text_encoder=SimpleNamespace(max_tokens=512),
    )
    return SimpleNamespace(
        method=method,
        tokenizer=loader.tokenizer,
        image_size=SIZE,
        resize_to=SIZE,
        batch_size=12,
        device=torch.device("cpu"),
    )


def measure(loader, choose, **options):
    (found,) = Grounding(**options).measure(model_of(loader, choose), loader.corpus, [Cell()], 50)
    return found.row()


def test_pointing_of_an_oracle_its_opposite_and_chance(loader):
    right = measure(loader, lambda cells: cells.float())
    assert right["pointing"] == right["pointing_low"] == 1.0
    assert right["phrases"] > 40
    wrong = measure(loader, lambda cells: 1 - cells.float())
    assert wrong["pointing"] == 0.0
    assert wrong["cnr"] < 0 < right["cnr"]
    assert wrong["miou"] < 0.2 < right["miou"]
    generator = torch.Generator().manual_seed(0)
    random = measure(loader, lambda cells: torch.rand(len(cells), generator=generator))
    assert abs(random["pointing"] - random["chance"]) < 4 * (random["chance"] / right["phrases"]) ** 0.5
    assert abs(random["cnr"]) < 0.2
    names = set(loader.corpus.label_names)
    assert {key.partition("/")[2] for key in right if "/" in key} <= names


def test_one_finding_alone(loader):
    found = measure(loader, lambda cells: cells.float(), names=["effusion"])
    assert {key.partition("/")[2] for key in found if "/" in key} == {"effusion"}
    assert 0 < found["phrases"] < measure(loader, lambda cells: cells.float())["phrases"]
    with pytest.raises(UserError, match="did you mean 'effusion'"):
        measure(loader, lambda cells: cells.float(), names=["efusion"])


def test_names_of_boxes_in_a_template_for_films_without_reports(loader):
    """Every box of a film is pointed at once; here by attention that always looks at the film's first row."""
    asked = []

    def attention_maps(images, reports):
        asked.append((len(images), loader.tokenizer.decode(reports.token_ids[0], skip_special_tokens=True)))
        weights = torch.zeros(reports.sentence_count, GRID[0] * GRID[1])
        weights[:, 0] = 1
        return weights.unflatten(1, GRID)

    model = model_of(loader, None)
    model.method.attention_maps = attention_maps
    corpus = loader.corpus
    task = Grounding(phrases="names", names=["effusion", "cardiomegaly"], template="there is {}.")
    (found,) = task.measure(model, corpus, [Cell()], 20)
    boxes = corpus.boxes()[corpus.boxes()["row"].isin(corpus.rows("test")) & corpus.boxes()["name"].isin(task.names)]
    pairs = boxes.groupby(["row", "name"])
    assert found.numbers["phrases"] == sum(count for count, _ in asked) == len(pairs)
    assert {text for _, text in asked} <= {"there is effusion.", "there is cardiomegaly."}
    corners = [own[["x0", "y0", "x1", "y1"]].to_numpy() for _, own in pairs]
    first_cell = [any(cells_touched(box, GRID, SIZE)[0] for box in own) for own in corners]
    assert found.numbers["pointing"] == pytest.approx(np.mean(first_cell))


def test_two_boxes_of_one_name_are_one_region(loader):
    weights = np.zeros(GRID)
    weights[7, 7] = 1
    boxes = np.array([[0.0, 0, 8, 8], [56, 56, 64, 64]])
    found = score([Look(int(loader.rows[0]), "effusion", weights, boxes, SIZE)], loader.corpus, 5)
    assert found.numbers["pointing"] == 1
    assert found.numbers["chance"] == pytest.approx(2 / 64)
    cropped = Look(int(loader.rows[0]), "effusion", weights, np.array([[-9.0, 0, -1, 8]]), SIZE)
    with pytest.raises(UserError, match="no phrase has a box"):
        score([cropped], loader.corpus, 5)


def test_pixels_and_maps():
    inside = pixels_inside(np.array([[1.0, 2.0, 4.0, 3.0]]), 6)
    assert inside.nonzero()[0].tolist() == [2, 2, 2]
    assert inside.nonzero()[1].tolist() == [1, 2, 3]
    assert pixels_inside(np.array([[1.1, 2.1, 1.2, 2.2]]), 6).sum() == 1  # no pixel's centre, but a pixel
    weights = np.random.default_rng(0).random((3, 3))
    expected = zoom(weights, 4, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(upsample(weights, 12), expected, atol=1e-12)


def test_a_template_needs_a_place_for_the_name():
    with pytest.raises(UserError, match=r"needs \{\} for the name"):
        Grounding(template="opacity")


def test_equally_high_cells_count_in_part(loader):
    corner = np.array([[0.0, 0, 8, 8]])
    row = int(loader.rows[0])
    flat = score([Look(row, "effusion", np.full(GRID, 1 / 64), corner, SIZE)], loader.corpus, 5).numbers
    assert flat["pointing"] == flat["chance"] == 1 / 64  # not 1 for a box in the corner where argmax begins
    two = np.zeros(GRID)
    two[0, 0] = two[5, 5] = 0.5
    assert score([Look(row, "effusion", two, corner, SIZE)], loader.corpus, 5).numbers["pointing"] == 0.5
