"""Reports to token states and sentence means."""

import argparse
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lingula.data.collate import pack
from lingula.nn.text_encoders import (
    TextEncoder,
    first_token_attention,
    freeze_layers,
    has_first_token_attention,
    text_config,
)
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
    with pytest.raises(UserError, match=r"cannot load the text encoder '.*nowhere'.*--text_encoder small_bert"):
        text_config(str(tmp_path / "nowhere"), 50)
    with pytest.raises(UserError, match="cannot load the text encoder"):
        TextEncoder(text_config("small_bert", 50), weights=tmp_path / "nowhere")


# Published weights.

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


def published(folder, weights, file="model.safetensors", **changes):
    """A folder as on the hub, with these tensors, and a configuration."""
    from transformers import BertConfig

    BertConfig(**SIZES | changes).save_pretrained(folder)
    if file.endswith(".safetensors"):
        save_file({key: value.clone() for key, value in weights.items()}, folder / file, metadata={"format": "pt"})
    else:
        torch.save(weights, folder / file)
    return folder


def bert_weights(seed=1):
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    return BertModel(BertConfig(**SIZES)).state_dict()


def renamed(weights, prefix):
    return {prefix + key: value for key, value in weights.items()}


WITHOUT_POOLER = {key: value for key, value in bert_weights().items() if not key.startswith("pooler.")}
LANGUAGE_MODEL = {"cls.predictions.bias": torch.zeros(60), "cls.seq_relationship.weight": torch.zeros(2, 16)}


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (lambda w: w, "model.safetensors"),
        (lambda w: w, "pytorch_model.bin"),
        (lambda w: renamed(w, "bert.") | LANGUAGE_MODEL, "model.safetensors"),
        (lambda w: {key: w[key] for key in WITHOUT_POOLER}, "model.safetensors"),
        (lambda w: w | {"embeddings.position_ids": torch.arange(64)[None]}, "pytorch_model.bin"),
        (
            lambda w: {k.replace("m.weight", "m.gamma").replace("m.bias", "m.beta"): w[k] for k in w},
            "model.safetensors",
        ),
        (lambda w: {key: value.half() for key, value in w.items()}, "model.safetensors"),
    ],
    ids=["safetensors", "bin", "language model", "without pooler", "position ids", "old names", "half precision"],
)
def test_every_tensor_is_the_files(tmp_path, write, file):
    weights = {key: value.half().float() for key, value in bert_weights().items()}  # so that half precision keeps them
    published(tmp_path, write(weights), file)
    found = TextEncoder(text_config(str(tmp_path), 60), tmp_path).backbone.state_dict()
    assert found.keys() == WITHOUT_POOLER.keys()
    assert all(torch.equal(found[key], weights[key]) for key in found)
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_weights_in_several_files(tmp_path):
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path, max_shard_size="5KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    found = TextEncoder(text_config(str(tmp_path), 60), tmp_path).backbone.state_dict()
    assert all(torch.equal(found[key], value) for key, value in WITHOUT_POOLER.items())
    shards[0].unlink()
    with pytest.raises(UserError, match=rf"cannot load the text encoder in the folder .*{shards[0].name}"):
        TextEncoder(text_config(str(tmp_path), 60), tmp_path)


@pytest.mark.parametrize(
    ("weights", "changes", "message"),
    [
        (
            renamed(bert_weights(), "text_encoder_q.model."),
            {},
            r"37 of its 37 tensors are missing.* 39 under 'text_encoder_q.model.', such as 'text_encoder_q.model..*; "
            r"cut the prefix 'text_encoder_q.model.' off$",
        ),
        (
            {key: value for key, value in bert_weights().items() if "layer.1." not in key},
            {},
            r"16 of its 37 tensors are missing, such as 'encoder.layer.1.[a-z.]*'$",
        ),
        (bert_weights() | {"projection.weight": torch.zeros(2)}, {}, r"the file has 'projection.weight', for which"),
        (
            bert_weights(),
            {"num_hidden_layers": 1},
            r"the file has 16 under 'encoder.layer.', such as 'encoder.layer.1.",
        ),
        (bert_weights(), {"vocab_size": 50}, r"'embeddings.word_embeddings.weight' is of shape \(60, 16\).* not \(50"),
        (
            bert_weights() | {"encoder.layer.0.output.dense.bias": torch.full((16,), torch.nan)},
            {},
            "are NaN or infinite in 1 tensors, such as 'encoder.layer.0.output.dense.bias'",
        ),
    ],
    ids=["prefix", "half", "unknown", "deeper", "shape", "nan"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, weights, changes, message):
    published(tmp_path, weights, **changes)
    config = text_config(str(tmp_path), 50)
    with pytest.raises(UserError, match=message) as caught:
        TextEncoder(config, tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_weights(tmp_path):
    published(tmp_path, bert_weights())
    config = text_config(str(tmp_path), 60)
    assert TextEncoder(config).backbone is not None  # random ones need none
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"in the folder .*: Error no file named model.safetensors"):
        TextEncoder(config, tmp_path)
    published(tmp_path, bert_weights() | {"best": argparse.Namespace(auroc=0.5)}, "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin holds other objects than tensors; save them as") as caught:
        TextEncoder(config, tmp_path)
    assert "weights_only" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_there_are_embeddings(tmp_path):
    published(tmp_path, {})
    assert text_config(str(tmp_path), 60).vocab_size == 60
    with pytest.raises(
        UserError, match=r"the tokenizer of .* has 61 tokens, and the text encoder embeddings of 60 only"
    ):
        text_config(str(tmp_path), 61)


def test_models_that_are_no_text_encoders(tmp_path):
    from transformers import CLIPConfig, T5Config

    for config, name in ((CLIPConfig(), "vocab_size"), (T5Config(), "max_position_embeddings")):
        config.save_pretrained(tmp_path)
        with pytest.raises(UserError, match=f"is no text encoder: its config.json names no {name}"):
            text_config(str(tmp_path), 50)


def test_frozen_layers_and_embeddings_get_no_gradient():
    encoder = TextEncoder(text_config("small_bert", 40))
    freeze_layers(encoder, 0)
    assert all(p.requires_grad for p in encoder.parameters())
    freeze_layers(encoder, 1)
    frozen = {name for name, p in encoder.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {
        name for name, _ in encoder.backbone.named_parameters() if name.startswith(("embeddings.", "encoder.layer.0."))
    }
    assert frozen
    with pytest.raises(UserError, match="cannot freeze 3 layers of the text encoder, of which 2 are known"):
        freeze_layers(encoder, 3)


def bert(layers):
    from transformers import BertConfig

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    return TextEncoder(config).double().eval()


def test_the_sum_of_the_last_layers_states(tiny):
    encoder, reports = bert(3), tiny.batch((2, 1)).reports
    states = encoder.states(reports)
    assert len(states) == 4  # the embeddings come first
    torch.testing.assert_close(encoder(reports).tokens, states[3])
    torch.testing.assert_close(encoder(reports, layers=2).tokens, states[2] + states[3])
    torch.testing.assert_close(encoder(reports, layers=9).tokens, states[1] + states[2] + states[3])
    features = encoder(reports, layers=2)
    torch.testing.assert_close(features.sentences[0], features.tokens[reports.sentence_of_token == 0].mean(0))


def test_the_first_tokens_attention_is_what_the_last_layer_uses(tiny):
    encoder, reports = bert(2), tiny.batch((2, 1, 3)).reports
    assert has_first_token_attention(encoder)
    assert not has_first_token_attention(SimpleNamespace(backbone=torch.nn.Linear(1, 1)))
    found = first_token_attention(encoder, encoder.states(reports)[-2], reports.token_mask)
    with torch.no_grad():
        encoder.backbone.set_attn_implementation("eager")  # transformers' own, slow, which keeps its weights
        inputs = {"input_ids": reports.token_ids, "attention_mask": reports.token_mask.long()}
        used = encoder.backbone(**inputs, output_attentions=True).attentions[-1][:, :, 0]
    torch.testing.assert_close(found, used.mean(1))
    assert (found[~reports.token_mask] == 0).all()
    assert not found.requires_grad


def packed(reports):
    packing = pack(reports.token_mask.sum(1).numpy())
    assert len(packing.token) < len(reports.token_ids)  # some row holds several reports
    return dataclasses.replace(reports, packing=packing)


def test_packed_reports_give_the_states_of_padded_ones(tiny):
    encoder = TextEncoder(text_config("small_bert", 60)).double().eval()
    reports = tiny.batch((4, 1, 1, 2, 3, 1, 1)).reports
    one, other = encoder(reports), encoder(packed(reports))
    torch.testing.assert_close(other.tokens[reports.token_mask], one.tokens[reports.token_mask], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other.sentences, one.sentences, rtol=1e-10, atol=1e-10)
    assert (other.tokens[~reports.token_mask] == 0).all()
    weights = torch.randn_like(one.sentences)
    for features in (one, other):
        encoder.zero_grad()
        (features.sentences * weights).sum().backward()
        grads = [p.grad.clone() for p in encoder.parameters()]
        if features is one:
            expected = grads
    torch.testing.assert_close(grads, expected, rtol=1e-9, atol=1e-10)
    for a, b in zip(encoder.states(reports), encoder.states(packed(reports)), strict=True):
        torch.testing.assert_close(b[reports.token_mask], a[reports.token_mask], rtol=1e-10, atol=1e-10)


def test_a_model_that_counts_positions_otherwise_reads_padded_reports(tiny):
    from transformers import RobertaConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = TextEncoder(RobertaConfig(vocab_size=60, max_position_embeddings=80, pad_token_id=0, **sizes)).eval()
    reports = tiny.batch((4, 1, 1, 2, 3, 1, 1)).reports
    assert not encoder.packs
    assert torch.equal(encoder(reports).tokens, encoder(packed(reports)).tokens)
