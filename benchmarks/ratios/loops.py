"""C5: pooling tokens into sentences, and cross-attention with SimSiam, against loops over reports and sentences."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds
from torch import Tensor

from lingula.batch import Reports
from lingula.losses.simsiam import simsiam
from lingula.nn.attention import SigmoidCrossAttention
from lingula.nn.sentences import sentence_means


def reports_of(batch: int, sentences: int, words: int) -> Reports:
    """Reports of 1 to ``sentences`` sentences of 3 to ``words`` tokens each, between two specials."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, sentences + 1, (batch,), generator=generator)
    lengths = [torch.randint(3, words + 1, (int(count),), generator=generator) for count in counts]
    longest = max(int(of_report.sum()) for of_report in lengths) + 2
    place, first = torch.full((batch, longest), -1), 0
    for row, of_report in enumerate(lengths):
        own = torch.repeat_interleave(torch.arange(len(of_report)), of_report) + first
        place[row, 1 : 1 + len(own)] = own
        first += len(of_report)
    ends = torch.tensor([int(of_report.sum()) + 2 for of_report in lengths])
    report_of = torch.repeat_interleave(torch.arange(batch), counts)
    position = torch.cat([torch.arange(int(count)) for count in counts])
    mask = torch.arange(longest) < ends[:, None]
    return Reports(place, mask, place, place, report_of, position, position, int(counts.max()), 1)


def sentence_pooling(batch: int, width: int, rounds: int = 7) -> Figure:
    """Means over each sentence's tokens, forward and backward."""
    reports = reports_of(batch, 8, 20)
    tokens = torch.randn(*reports.token_ids.shape, width, requires_grad=True)

    def looped() -> Tensor:
        means = []
        for row in range(batch):
            for sentence in reports.sentence_of_token[row].unique().tolist():
                if sentence >= 0:
                    means.append(tokens[row][reports.sentence_of_token[row] == sentence].mean(0))
        return torch.stack(means)

    def ours() -> Tensor:
        return sentence_means(tokens, reports.sentence_of_token, reports.sentence_count)

    return _compare("C5 pooling", "sentence pooling against loops", 10, ours, looped, (tokens,), rounds)


def cross_attention(batch: int, patches: int, width: int, rounds: int = 7) -> Figure:
    """Eqs. 5, 6 and 10 of CM-CGNS, pair by pair and all at once, forward and backward."""
    torch.manual_seed(0)
    attention, predictor = SigmoidCrossAttention(width), torch.nn.Linear(width, width)
    reports = reports_of(batch, 8, 20)
    film = torch.randn(batch, patches, width, requires_grad=True)
    sentences = torch.randn(reports.sentence_count, width, requires_grad=True)

    def loss(patch: Tensor, drawn: Tensor) -> Tensor:
        """Summed over patches."""
        return 0.5 * (simsiam(predictor(patch), drawn) + simsiam(predictor(drawn), patch)).sum()

    def looped() -> Tensor:
        scale, total = width**-0.5, film.new_zeros(())
        for row in range(batch):
            own, places = sentences[reports.report_of_sentence == row], film[row]
            drawn_from_film = [
                torch.sigmoid(attention.image_key(places) @ attention.text_query(sentence) * scale)
                @ attention.image_value(places)
                for sentence in own
            ]
            drawn_from_report = [
                torch.sigmoid(attention.text_key(own) @ attention.image_query(place) * scale)
                @ attention.text_value(own)
                for place in places
            ]
            total = total + loss(places, torch.stack(drawn_from_report)) + torch.stack(drawn_from_film).sum()
        return total / batch

    def ours() -> Tensor:
        cross = attention(film, sentences, reports)
        return (loss(film, cross.report_to_image) + cross.image_to_report.sum()) / batch

    what = "cross-attention with SimSiam against loops"
    return _compare("C5 attention", what, 5, ours, looped, (film, sentences), rounds)


def _compare(
    key: str, what: str, goal: float, ours: Any, looped: Any, leaves: tuple[Tensor, ...], rounds: int
) -> Figure:
    def step(made: Any) -> list[Tensor]:
        value = made()
        return [value.detach(), *torch.autograd.grad(value.square().sum(), leaves)]

    for one, other in zip(step(ours), step(looped), strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * max(1.0, scale))
    fast, slow = in_turns(lambda: step(ours), lambda: step(looped), rounds=rounds)
    detail = {"ours_ms": milliseconds(fast), "loops_ms": milliseconds(slow)}
    return Figure(key, what, slow / fast, goal, detail=detail)


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    if small:
        return [sentence_pooling(3, 8, 1), cross_attention(3, 4, 8, 1)]
    return [sentence_pooling(64, 768), cross_attention(64, 49, 768)]
