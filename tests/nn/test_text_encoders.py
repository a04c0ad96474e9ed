"""Reports to token states and sentence means."""

import pytest
import torch

from lingula.nn.text_encoders import TextEncoder, text_config
from lingula.registry import UserError


def test_the_contract(tiny):
    encoder = tiny.encoders()["text_encoder"]
    reports = tiny.batch((2, 1, 3)).reports
    features = encoder.eval()(reports)
    assert features.tokens.shape == (*reports.token_ids.shape, encoder.width)
    assert torch.equal(features.token_mask, reports.token_mask)
    assert torch.equal(features.report_of_sentence, reports.report_of_sentence)
    for n in range(reports.sentence_count):
        own = features.tokens[reports.sentence_of_token == n]
        torch.testing.assert_close(features.sentences[n], sum(own) / len(own))


def test_a_sentence_is_read_in_the_context_of_its_own_report_only(tiny):
    encoder = tiny.encoders()["text_encoder"]
    encoder.eval()
    reports = tiny.batch((2, 1, 3)).reports
    before = encoder(reports).sentences
    reports.token_ids[0, 1] = (reports.token_ids[0, 1] + 1) % 30 + 3  # a word of the first sentence
    changed = (encoder(reports).sentences - before).abs().amax(1) > 1e-5
    assert changed.tolist() == [True, True, False, False, False, False]


def test_padding_changes_nothing(tiny):
    encoder = tiny.encoders()["text_encoder"]
    batch = tiny.batch((2, 1, 3))
    encoder.eval()
    one, other = encoder(batch.reports), encoder(tiny.pad(batch, tokens=9).reports)
    torch.testing.assert_close(one.sentences, other.sentences)


def test_every_parameter_gets_a_gradient(tiny):
    encoder = tiny.encoders()["text_encoder"]
    encoder(tiny.batch((2, 1)).reports).sentences.square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_the_small_bert_and_a_name_that_is_none(tmp_path):
    encoder = TextEncoder(text_config("small_bert", vocabulary=50))
    assert (encoder.width, encoder.max_tokens) == (128, 256)
    with pytest.raises(UserError, match=r"cannot load the text encoder '.*'.*--text_encoder small_bert"):
        text_config(str(tmp_path / "nowhere"), 50)
    with pytest.raises(UserError, match="cannot load the text encoder"):
        TextEncoder(text_config("small_bert", 50), weights=tmp_path / "nowhere")
