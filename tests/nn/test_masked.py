"""BatchNorm over words: that of the real rows alone, as torch has it when padding is taken out."""

import copy

import pytest
import torch
from torch import nn

from lingula.nn.heads import mlp
from lingula.nn.masked import MaskedBatchNorm, WordProjection


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_what_batch_norm_gives_without_the_padding(affine, momentum):
    own, reference = (kind(4, affine=affine, momentum=momentum).double() for kind in (MaskedBatchNorm, nn.BatchNorm1d))
    if affine:
        with torch.no_grad():
            own.weight.copy_(torch.randn(4)), own.bias.copy_(torch.randn(4))
        reference.load_state_dict(own.state_dict())
    mask = torch.tensor([True, False, True, True, False, True])
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 4, generator=generator, dtype=torch.float64).add(3).requires_grad_()
        y = x.detach().clone().requires_grad_()
        found, expected = own(x, mask)[mask], reference(y[mask])
        torch.testing.assert_close(found, expected)
        found.pow(3).sum().backward(), expected.pow(3).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], value, msg=name)
    torch.testing.assert_close(own.eval()(x, mask), reference.eval()(x))  # evaluation needs no mask


def test_without_a_mask_it_is_batch_norm():
    own, reference, x = MaskedBatchNorm(3), nn.BatchNorm1d(3), torch.randn(5, 3)
    torch.testing.assert_close(own(x), reference(x))


def test_words_alone_or_among_padding():
    """The projection of padded words is the papers' head over the words side by side."""
    projection, head = WordProjection(5, 8, 3).double(), mlp(5, 8, 3, last_norm=True, last_affine=False).double()
    head.load_state_dict(dict(zip(head.state_dict(), projection.state_dict().values(), strict=True)))
    words = torch.randn(2, 4, 5, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    other = copy.deepcopy(projection)
    found = projection(words, mask)
    torch.testing.assert_close(found[mask], head(words[mask]))
    assert (found[~mask] == 0).all()
    changed = torch.where(mask[..., None], words, 100.0)
    torch.testing.assert_close(other(changed, mask), found)
    for name, value in projection.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, msg=name)


def test_one_word_is_finite():
    projection = WordProjection(5, 8, 3)
    found = projection(torch.randn(1, 2, 5), torch.tensor([[True, False]]))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in projection.parameters())
