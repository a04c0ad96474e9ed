"""Focal loss and log Dice against literal loops over pixels, and against other libraries."""

import math

import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torchvision.ops import sigmoid_focal_loss

from lingula.losses.segmentation import focal, negative_log_dice


def literal_focal(logits, truth, gamma):
    losses = []
    for image, mask in zip(logits.flatten(1).tolist(), truth.flatten(1).tolist(), strict=True):
        pixels = []
        for x, inside in zip(image, mask, strict=True):
            p = 1 / (1 + math.exp(-x))
            p_t = p if inside else 1 - p
            pixels.append(-((1 - p_t) ** gamma) * math.log(p_t))
        losses.append(sum(pixels) / len(pixels))
    return torch.tensor(losses, dtype=torch.float64)


def literal_log_dice(logits, truth, smooth):
    both = area = 0.0
    for x, inside in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        both += p * inside
        area += p + inside
    return torch.tensor(-math.log((2 * both + smooth) / (area + smooth)), dtype=torch.float64)


def images(size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(size)
    logits = 2 * torch.randn(size, 1, 3, 4, generator=generator, dtype=dtype)
    return logits, torch.rand(size, 1, 3, 4, generator=generator) < 0.3


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_equations(size):
    logits, truth = images(size)
    for gamma in (0.0, 2.0, 3.5):
        torch.testing.assert_close(focal(logits, truth, gamma), literal_focal(logits, truth, gamma))
    torch.testing.assert_close(focal(logits, truth), literal_focal(logits, truth, 2))
    for smooth in (0.5, 1.0):
        torch.testing.assert_close(negative_log_dice(logits, truth, smooth), literal_log_dice(logits, truth, smooth))
    torch.testing.assert_close(negative_log_dice(logits, truth), literal_log_dice(logits, truth, 1))


def test_other_libraries():
    logits, truth = images(4, torch.float32)
    theirs = sigmoid_focal_loss(logits, truth.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(focal(logits, truth).mean(), theirs)
    theirs = DiceLoss("binary", log_loss=True, smooth=0.5)(logits, truth.long())  # theirs is added to half of it all
    torch.testing.assert_close(negative_log_dice(logits, truth), theirs)


def test_gradient():
    logits, truth = images(2)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal(x, truth), logits)
    assert torch.autograd.gradcheck(lambda x: negative_log_dice(x, truth), logits)


def test_closed_forms():
    logits, truth = images(3)
    half = torch.zeros_like(logits)
    torch.testing.assert_close(focal(half, truth), torch.full((3,), math.log(2) / 4, dtype=torch.float64))
    sure = torch.where(truth, 100.0, -100.0)
    assert focal(sure, truth).max() == 0
    assert negative_log_dice(sure, truth).abs() < 1e-6
    assert focal(-sure, truth).allclose(torch.tensor(100.0))  # as far off as the logit goes
    nothing = torch.zeros_like(truth)
    torch.testing.assert_close(negative_log_dice(half, nothing), torch.tensor(math.log(18 + 1)).double())
    assert negative_log_dice(torch.full_like(half, -100), nothing).abs() < 1e-6


def test_one_dice_for_the_whole_batch():
    """An image without a lesion costs a little more area, not a Dice of its own."""
    logits, truth = images(2)
    truth[1] = False
    together = negative_log_dice(logits, truth)
    assert not together.isclose(torch.stack([negative_log_dice(logits[i], truth[i]) for i in (0, 1)]).mean(), rtol=0.1)
    torch.testing.assert_close(together, negative_log_dice(logits.flatten()[None], truth.flatten()[None]))
    torch.testing.assert_close(focal(logits, truth)[0], focal(logits[:1], truth[:1])[0])


@pytest.mark.parametrize("loss", [focal, negative_log_dice])
def test_full_precision_and_finite(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 64, 64, generator=generator).bfloat16()
    truth = torch.rand(2, 1, 64, 64, generator=generator) < 0.2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, truth)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(logits.double(), truth))
    far = torch.tensor([[1e4, -1e4, 1e4, -1e4]]).requires_grad_()
    loss(far, torch.tensor([[True, True, False, False]])).sum().backward()
    assert loss(far, torch.tensor([[False, False, False, False]])).isfinite().all()
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("loss", [focal, negative_log_dice])
def test_errors(loss):
    with pytest.raises(ValueError, match=r"in the shape of the logits \(2, 3\), got \(3, 2\)"):
        loss(torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected a bool truth .* in torch.float32"):
        loss(torch.ones(2, 3), torch.ones(2, 3))
