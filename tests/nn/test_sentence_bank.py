"""The bank against loops over sentences and prototypes."""

import math

import pytest
import torch

from lingula.keyed import keyed_gumbel
from lingula.nn.sentence_bank import SentenceBank


def literal(sentences, prototypes, noise, tau):
    made = []
    for sentence, own in zip(sentences, noise, strict=True):
        weights = []
        for prototype, g in zip(prototypes, own, strict=True):
            product = sum(a * b for a, b in zip(sentence, prototype, strict=True))
            weights.append(math.exp((product + g) / tau))
        total = sum(weights)
        mixture = [0.0] * len(sentence)
        for weight, prototype in zip(weights, prototypes, strict=True):
            mixture = [m + weight / total * p for m, p in zip(mixture, prototype, strict=True)]
        made.append(mixture)
    return torch.tensor(made, dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.5, 0.9])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_mixtures_of_prototypes(count, tau):
    torch.manual_seed(count)
    bank = SentenceBank(4, 3, tau).double()
    sentences = torch.randn(count, 4, dtype=torch.float64)
    noise = keyed_gumbel(3, torch.arange(count), 3)
    expected = literal(sentences.tolist(), bank.prototypes.tolist(), noise.tolist(), tau)
    torch.testing.assert_close(bank(sentences, noise), expected)
    quiet = literal(sentences.tolist(), bank.prototypes.tolist(), [[0.0] * 3] * count, tau)
    torch.testing.assert_close(bank(sentences), quiet)
    torch.testing.assert_close(bank(sentences.view(1, count, 4))[0], quiet)


def test_a_prototype_of_great_length_stays_itself():
    bank = SentenceBank(3, 3).double()
    with torch.no_grad():
        bank.prototypes.copy_(20 * torch.eye(3))
    sentences = 20 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(bank(sentences), sentences)


def test_gradient():
    bank = SentenceBank(3, 4).double()
    sentences = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    noise = keyed_gumbel(0, torch.arange(2), 4)
    assert torch.autograd.gradcheck(lambda s, e: _with(bank, e)(s, noise), (sentences, bank.prototypes))


def _with(bank, prototypes):
    return lambda s, noise: torch.func.functional_call(bank, {"prototypes": prototypes}, (s, noise))


def test_full_precision_under_autocast():
    bank, sentences = SentenceBank(4, 3), torch.randn(2, 4)
    expected = bank(sentences)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(bank(sentences), expected)
        assert bank(sentences.bfloat16()).dtype == torch.float32


def test_errors():
    with pytest.raises(ValueError, match=r"needs prototypes and a positive temperature, got 0 and 0\.9"):
        SentenceBank(4, 0)
