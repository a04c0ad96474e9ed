"""NT-Xent against a literal sum, and what must hold of it."""

import math

import pytest
import torch

from lingula.losses.nt_xent import nt_xent


def literal_cosine(a, b):
    product = length_a = length_b = 0.0
    for x, y in zip(a, b, strict=True):
        product += x * y
        length_a += x * x
        length_b += y * y
    return product / math.sqrt(length_a) / math.sqrt(length_b)


def literal(views, tau):
    """Eq. 1 for all of 2B views, those of a film B apart: one Python sum per sum of the equation."""
    count, losses = len(views), []
    for i in range(count):
        denominator = 0.0
        for k in range(count):
            if k != i:
                denominator += math.exp(literal_cosine(views[i], views[k]) / tau)
        j = (i + count // 2) % count
        losses.append(-math.log(math.exp(literal_cosine(views[i], views[j]) / tau) / denominator))
    return torch.tensor(losses, dtype=torch.float64)


def make_views(films, dim=6, seed=0):
    return torch.randn(2 * films, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_against_all(views, tau):
    places = torch.arange(len(views))
    return nt_xent(views, views, tau, places, places.roll(len(views) // 2))


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("films", [1, 2, 5])
def test_the_equation(films, tau):
    views = make_views(films)
    torch.testing.assert_close(all_against_all(views, tau), literal(views.tolist(), tau))


def test_anchors_that_are_some_of_the_candidates():
    views = make_views(5)
    itself, positive = torch.tensor([3, 8]), torch.tensor([8, 3])
    some = nt_xent(views[itself], views, 0.2, itself, positive)
    torch.testing.assert_close(some, literal(views.tolist(), 0.2)[itself])


@pytest.mark.parametrize("films", [1, 2, 5])
def test_gradient(films):
    views = make_views(films).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: all_against_all(v, 0.2), views)


@pytest.mark.parametrize("films", [1, 2, 5])
def test_identical_embeddings_give_log_of_the_other_views(films):
    same = torch.ones(2 * films, 4, dtype=torch.float64)
    expected = torch.full((2 * films,), math.log(2 * films - 1), dtype=torch.float64)
    torch.testing.assert_close(all_against_all(same, 0.1), expected)


def test_one_film_gives_zero():
    views = make_views(1).requires_grad_()
    loss = all_against_all(views, 0.1)
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert views.grad.isfinite().all()


def test_orthogonal_films_have_a_closed_form():
    views = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    expected = math.log(math.exp(1 / 0.5) + 6) - 1 / 0.5
    torch.testing.assert_close(all_against_all(views, 0.5), torch.full((8,), expected, dtype=torch.float64))


def test_order_length_and_rotation():
    views = make_views(5)
    expected = all_against_all(views, 0.1)
    order = torch.tensor([3, 0, 4, 1, 2])
    both = torch.cat([order, order + 5])
    torch.testing.assert_close(all_against_all(views[both], 0.1), expected[both])
    lengths = torch.rand(10, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    torch.testing.assert_close(all_against_all(views * lengths, 0.1), expected)
    rotation = torch.linalg.qr(make_views(3)).Q
    torch.testing.assert_close(all_against_all(views @ rotation, 0.1), expected)


def test_full_precision_under_autocast():
    views = make_views(5).float().requires_grad_()
    expected = all_against_all(views, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = all_against_all(views, 0.01)
        half = all_against_all(views.bfloat16(), 0.01)
    assert loss.dtype == half.dtype == torch.float32
    assert half.isfinite().all()
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert views.grad.isfinite().all()


def test_errors():
    views, places = make_views(2), torch.arange(4)
    with pytest.raises(ValueError, match="got 4 anchors, 3 places and 4 positives"):
        nt_xent(views, views, 0.1, places[:3], places)
    with pytest.raises(ValueError, match=r"must be equally wide, got \(4, 6\) and \(4, 5\)"):
        nt_xent(views, views[:, :5], 0.1, places, places)
