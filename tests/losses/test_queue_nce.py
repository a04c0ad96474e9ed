"""InfoNCE against a queue, held against one Python sum per sum of the equation."""

import math

import pytest
import torch

from lingula.losses.queue_nce import queue_nce


def draw(count, seed=0):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def literal(query, key, queue, tau):
    """Eq. 1 of MoCo: one Python sum per sum of the equation."""
    losses = []
    for q, k in zip(query, key, strict=True):
        q, k = literal_unit(q), literal_unit(k)
        own = math.exp(sum(x * y for x, y in zip(q, k, strict=True)) / tau)
        denominator = own
        for u in map(literal_unit, queue):
            denominator += math.exp(sum(x * y for x, y in zip(q, u, strict=True)) / tau)
        losses.append(-math.log(own / denominator))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equation(size, tau):
    queue = draw(7)
    query, key = draw(size, seed=1), draw(size, seed=2)
    expected = literal(query.tolist(), key.tolist(), queue.tolist(), tau)
    torch.testing.assert_close(queue_nce(query, key, queue, tau), expected)


def test_the_other_keys_of_the_batch_are_no_candidates():
    queue = draw(7)
    query, key = draw(4, seed=1), draw(4, seed=2)
    alone = torch.cat([queue_nce(query[i : i + 1], key[i : i + 1], queue, 0.1) for i in range(4)])
    torch.testing.assert_close(queue_nce(query, key, queue, 0.1), alone)


def test_gradient_to_the_query_alone():
    queue = draw(7)
    query, key = draw(3, seed=1).requires_grad_(), draw(3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: queue_nce(q, key.detach(), queue, 0.2), query)
    queue_nce(query, key, queue, 0.2).sum().backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None


def test_closed_forms():
    queue = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).expand(7, -1)
    same = queue[:2]
    eight = torch.full((2,), math.log(8), dtype=torch.float64)
    torch.testing.assert_close(queue_nce(same, same, queue, 0.07), eight)
    across = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([math.log(math.exp(1 / 0.5) + 7) - 1 / 0.5], dtype=torch.float64)
    torch.testing.assert_close(queue_nce(across, across, queue, 0.5), expected)


def test_lengths_do_not_matter():
    queue = draw(7)
    query, key = draw(3, seed=1), draw(3, seed=2)
    torch.testing.assert_close(queue_nce(5 * query, key / 7, 3 * queue, 0.1), queue_nce(query, key, queue, 0.1))


def test_full_precision_under_autocast():
    queue = draw(7).float()
    query, key = draw(3, seed=1).float().requires_grad_(), draw(3, seed=2).float()
    expected = queue_nce(query, key, queue, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = queue_nce(query, key, queue, 0.01)
        half = queue_nce(query.bfloat16(), key.bfloat16(), queue, 0.01)
    assert loss.dtype == half.dtype == torch.float32
    assert half.isfinite().all()
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert query.grad.isfinite().all()


def test_shapes_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r"query and key must pair up, got \(2, 3\) and \(1, 3\)"):
        queue_nce(torch.ones(2, 3), torch.ones(1, 3), torch.ones(4, 3), 0.1)
