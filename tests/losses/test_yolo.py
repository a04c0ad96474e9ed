"""YOLOv3's assignment and loss against a literal loop over films, boxes, scales and cells."""

import math

import pytest
import torch

from lingula.losses.yolo import assign, yolo

SIZE = 64
GRIDS = ((8, 8), (4, 4), (2, 2))
ANCHORS = torch.tensor(
    [[[6, 8], [10, 5], [12, 12]], [[14, 20], [20, 14], [24, 24]], [[30, 40], [50, 40], [60, 60]]], dtype=torch.float64
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(logit, target):
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(1 - sigmoid(logit))


def literal(predictions, anchors, boxes, labels, image_size):
    """Every sum as a sum, one film at a time: ``{term: [per film]}``, and the state of every prediction."""
    terms = {name: [0.0] * len(boxes) for name in ("centre", "size", "object", "background", "class")}
    states = {}
    for film in range(len(boxes)):
        for scale, prediction in enumerate(predictions):
            rows, columns, width = prediction.shape[2], prediction.shape[3], prediction.shape[4]
            owner, fitting = {}, set()
            for box, label in zip(boxes[film], labels[film], strict=True):
                if label < 0:
                    continue
                x, y = box[0] * columns / image_size, box[1] * rows / image_size
                column, row = min(int(x), columns - 1), min(int(y), rows - 1)
                overlaps = []
                for anchor in anchors[scale]:
                    both = min(box[2], anchor[0]) * min(box[3], anchor[1])
                    overlaps.append(both / (box[2] * box[3] + anchor[0] * anchor[1] - both))
                best = overlaps.index(max(overlaps))
                fitting |= {(a, row, column) for a, overlap in enumerate(overlaps) if overlap > 0.5}
                sides = (math.log(box[2] / anchors[scale][best][0]), math.log(box[3] / anchors[scale][best][1]))
                owner[best, row, column] = (x - column, y - row, *sides, label)
            cells = [(a, row, column) for a in range(3) for row in range(rows) for column in range(columns)]
            for cell in cells:
                logits = [float(value) for value in prediction[(film, *cell)]]
                share = 1 / len(cells)
                if cell in owner:
                    x, y, log_width, log_height, label = owner[cell]
                    states[film, scale, *cell] = "positive"
                    of_classes = [cross_entropy(logits[5 + c], float(c == label)) for c in range(width - 5)]
                    terms["centre"][film] += share * (cross_entropy(logits[0], x) + cross_entropy(logits[1], y))
                    terms["size"][film] += share * ((logits[2] - log_width) ** 2 + (logits[3] - log_height) ** 2)
                    terms["object"][film] += share * cross_entropy(logits[4], 1.0)
                    terms["class"][film] += share * sum(of_classes) / len(of_classes)
                elif cell not in fitting:
                    states[film, scale, *cell] = "background"
                    terms["background"][film] += share * cross_entropy(logits[4], 0.0)
    return terms, states


def random_case(seed, films, most, classes):
    generator = torch.Generator().manual_seed(seed)
    predictions = [
        torch.randn(films, 3, *grid, 5 + classes, generator=generator, dtype=torch.float64) for grid in GRIDS
    ]
    sides = 2 + 60 * torch.rand(films, most, 2, generator=generator, dtype=torch.float64) ** 2
    boxes = torch.cat([torch.rand(films, most, 2, generator=generator, dtype=torch.float64) * SIZE, sides], -1)
    labels = torch.randint(-1, classes, (films, most), generator=generator)
    return predictions, boxes, labels


@pytest.mark.parametrize("films", [1, 2, 5])
@pytest.mark.parametrize("classes", [1, 3])
def test_equals_the_literal_loop(films, classes):
    for seed, most in ((0, 1), (1, 4), (2, 12)):
        predictions, boxes, labels = random_case(seed, films, most, classes)
        expected, states = literal(predictions, ANCHORS.tolist(), boxes.tolist(), labels.tolist(), SIZE)
        terms = yolo(predictions, ANCHORS, boxes, labels, SIZE)
        assert list(terms) == list(expected)
        for name, values in terms.items():
            torch.testing.assert_close(values, torch.tensor(expected[name], dtype=torch.float64), msg=name)
        for scale, grid in enumerate(GRIDS):
            target = assign(boxes, labels, ANCHORS[scale], grid, SIZE)
            assert not (target.positive & target.background).any()
            for state, mask in (("positive", target.positive), ("background", target.background)):
                own = {tuple(place) for place in mask.nonzero().tolist()}
                assert own == {(f, *cell) for (f, s, *cell), what in states.items() if (s, what) == (scale, state)}


def test_some_predictions_are_neither_positive_nor_background():
    boxes, labels = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]]), torch.zeros(1, 1, dtype=torch.int64)
    target = assign(boxes, labels, ANCHORS[1].float(), (4, 4), SIZE)  # IoU .70, .70 and .69 with the three anchors
    assert target.positive.sum() == 1
    assert target.background.sum() == 3 * 16 - 3


def test_of_two_boxes_in_one_place_the_last_has_it():
    boxes = torch.tensor([[[20.0, 20.0, 13.0, 19.0], [21.0, 22.0, 15.0, 21.0], [0.0, 0.0, 0.0, 0.0]]])
    target = assign(boxes, torch.tensor([[1, 0, -1]]), ANCHORS[1].float(), (4, 4), SIZE)
    assert target.positive.nonzero().tolist() == [[0, 0, 1, 1]]
    assert target.label[target.positive].tolist() == [0]
    torch.testing.assert_close(target.centre[target.positive], torch.tensor([[5 / 16, 6 / 16]]))


def test_a_centre_on_the_far_edge_belongs_to_the_last_cell():
    boxes = torch.tensor([[[64.0, 64.0, 14.0, 20.0]]])
    target = assign(boxes, torch.zeros(1, 1, dtype=torch.int64), ANCHORS[1].float(), (4, 4), SIZE)
    assert target.positive.nonzero().tolist() == [[0, 0, 3, 3]]
    assert target.centre[target.positive].tolist() == [[1.0, 1.0]]


def test_a_film_without_boxes_has_only_background():
    predictions, boxes, _ = random_case(0, 2, 3, 2)
    predictions = [p.requires_grad_() for p in predictions]
    terms = yolo(predictions, ANCHORS, boxes, torch.full((2, 3), -1), SIZE)
    assert all(bool((values == 0).all()) for name, values in terms.items() if name != "background")
    everywhere = sum(torch.log1p(p[..., 4].exp()).flatten(1).mean(1) for p in predictions)
    torch.testing.assert_close(terms["background"], everywhere)
    sum(values.sum() for values in terms.values()).backward()
    for prediction in predictions:
        assert prediction.grad is not None
        assert bool(prediction.grad[..., 4].all())
        assert not bool(prediction.grad[..., [0, 1, 2, 3, 5, 6]].any())


def test_gradient():
    predictions, boxes, labels = random_case(3, 2, 4, 2)
    predictions = [p.requires_grad_() for p in predictions]
    assert torch.autograd.gradcheck(
        lambda *p: tuple(yolo(p, ANCHORS, boxes, labels, SIZE).values()), predictions, fast_mode=True
    )


def test_films_and_boxes_in_any_order_and_more_padding_change_nothing():
    predictions, boxes, labels = random_case(4, 3, 2, 2)
    labels[:, 0], labels[:, 1] = 0, 1
    boxes[..., :2] = torch.tensor([[10.0, 10.0], [50.0, 50.0]])  # no two in one cell
    terms = yolo(predictions, ANCHORS, boxes, labels, SIZE)
    order = torch.tensor([2, 0, 1])
    moved = yolo([p[order] for p in predictions], ANCHORS, boxes[order].flip(1), labels[order].flip(1), SIZE)
    more = torch.cat([torch.zeros(3, 1, 4), boxes, torch.zeros(3, 2, 4)], 1)
    padding = torch.full((3, 1), -1)
    padded = yolo(predictions, ANCHORS, more, torch.cat([padding, labels, padding, padding], 1), SIZE)
    for name, values in terms.items():
        torch.testing.assert_close(moved[name], values[order])
        torch.testing.assert_close(padded[name], values)


def test_nothing_is_changed_in_place():
    predictions, boxes, labels = random_case(5, 2, 4, 2)
    given = [*predictions, ANCHORS, boxes, labels]
    before = [one.clone() for one in given]
    yolo(predictions, ANCHORS, boxes, labels, SIZE)
    assert all(torch.equal(one, old) for one, old in zip(given, before, strict=True))


def test_bfloat16_is_computed_in_float32():
    predictions, boxes, labels = random_case(6, 2, 4, 2)
    predictions = [100 * p for p in predictions]
    terms = yolo([p.bfloat16() for p in predictions], ANCHORS.float(), boxes.float(), labels, SIZE)
    exact = yolo([p.bfloat16().float() for p in predictions], ANCHORS.float(), boxes.float(), labels, SIZE)
    for name, values in terms.items():
        assert values.dtype == torch.float32
        assert bool(values.isfinite().all())
        assert torch.equal(values, exact[name])


def test_what_does_not_go_together_is_refused():
    predictions, boxes, labels = random_case(0, 2, 3, 1)
    with pytest.raises(ValueError, match=r"expected boxes of shape \(2, 2, 4\) for these labels, got \(2, 3, 4\)"):
        yolo(predictions, ANCHORS, boxes, labels[:, :2], SIZE)
    with pytest.raises(ValueError, match="anchors for each of 3 scales, got 2"):
        yolo(predictions, ANCHORS[:2], boxes, labels, SIZE)
