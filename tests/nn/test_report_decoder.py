import math

import pytest
import torch

from lingula.nn.report_decoder import ReportDecoder
from lingula.registry import UserError

PAD, BEGIN, END, WORDS = 0, 2, 3, 6


def make_decoder(max_tokens=9, spread=0.3, **options):
    """Six tokens, four places; its weights are spread so that films differ and beams are needed."""
    torch.manual_seed(0)
    settings = {"width": 8, "layers": 2, "heads": 2, "feed_forward": 8, "dropout": 0.0} | options
    decoder = ReportDecoder(5, 4, WORDS, max_tokens, BEGIN, END, PAD, **settings).double().eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "LayerNorm" not in name and "project.0" not in name:
                parameter.normal_(0, spread)
    return decoder


@pytest.fixture
def patches():
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)).double()


def next_token(decoder, patches, prefix):
    """Log-probabilities after a prefix, computed from that prefix alone."""
    seen = decoder.project(patches)[None] + decoder.place
    with torch.no_grad():
        logits = decoder.language_model(
            input_ids=torch.tensor([prefix]), encoder_hidden_states=seen, use_cache=False
        ).logits
    return logits[0, -1].log_softmax(0)


def test_each_token_is_predicted_from_those_before_it_and_the_film(patches):
    decoder = make_decoder()
    reports = [[BEGIN, 4, 5, 1, END], [BEGIN, 5, END], [BEGIN, END]]
    ids = torch.tensor([report + [PAD] * (5 - len(report)) for report in reports])
    mask = torch.tensor([[True] * len(report) + [False] * (5 - len(report)) for report in reports])
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for i, report in enumerate(reports):
        for j in range(1, len(report)):
            expected[i, j - 1] = -next_token(decoder, patches[i], report[:j])[report[j]]
    found = decoder(patches, ids, mask)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    longer = decoder(patches, torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3)))
    torch.testing.assert_close(longer[:, :4], found)
    assert (longer[:, 4:] == 0).all()


def test_one_beam_takes_the_likeliest_token_each_time(patches):
    decoder = make_decoder()
    found = decoder.generate(patches, beams=1)
    for row in range(3):
        report = [BEGIN]
        while report[-1] != END and len(report) < 9:
            report.append(int(next_token(decoder, patches[row], report).argmax()))
        ids = found[row].tolist()
        assert ids[: len(report)] == report
        assert set(ids[len(report) :]) <= {PAD, END}


def test_enough_beams_find_the_likeliest_report_per_token(patches):
    decoder = make_decoder(max_tokens=4)

    def every(film, report, total):
        if report[-1] == END or len(report) == 4:
            yield total / (len(report) - 1), report
            return
        for token, log_probability in enumerate(next_token(decoder, film, report).tolist()):
            yield from every(film, [*report, token], total + log_probability)

    found = decoder.generate(patches, beams=WORDS**2)
    greedy = decoder.generate(patches, beams=1)
    best = [max(every(film, [BEGIN], 0.0))[1] for film in patches]
    for row, report in enumerate(best):
        ids = found[row].tolist()
        assert ids[: len(report)] == report
        assert set(ids[len(report) :]) <= {PAD, END}
    assert any(greedy[row].tolist()[: len(report)] != report for row, report in enumerate(best))  # beams were needed


def test_places_count_and_an_encoders_scale_does_not(patches):
    decoder = make_decoder()
    ids, mask = torch.tensor([[BEGIN, 4, END]] * 3), torch.ones(3, 3, dtype=torch.bool)
    found = decoder(patches, ids, mask)
    torch.testing.assert_close(decoder(patches * 50 + 7, ids, mask), found, atol=1e-3, rtol=1e-3)
    assert (decoder(patches.flip(1), ids, mask) - found).abs().max() > 1e-2
    assert (decoder(patches.flip(0), ids, mask) - found).abs().max() > 1e-2


def test_it_starts_near_chance_and_every_weight_learns(patches):
    torch.manual_seed(0)
    decoder = ReportDecoder(5, 4, WORDS, 9, BEGIN, END, PAD, width=32, dropout=0.0)
    loss = decoder(patches.float(), torch.tensor([[BEGIN, 4, 5, END]] * 3), torch.ones(3, 4, dtype=torch.bool)).mean()
    assert loss.item() == pytest.approx(math.log(WORDS), abs=0.3)
    loss.backward()
    assert [name for name, parameter in decoder.named_parameters() if parameter.grad is None] == []


def test_no_room_for_a_word():
    with pytest.raises(UserError, match="max_tokens must be 3 or more, got 2"):
        make_decoder(max_tokens=2)
