import pickle
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import BertConfig, BertModel

from lingula.data.tokens import train_tokenizer
from lingula.metrics import clinical
from lingula.metrics.clinical import (
    ClinicalError,
    chexbert_labels,
    micro_f1,
    radgraph_f1,
)

REPORTS = ["no effusion is seen", "heart is enlarged and there is a small left effusion", "", "heart is normal"]

# F1 -------------------------------------------------------------------------------------------------------------------


def test_micro_f1_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2, 30, 5)) < 0.3
    assert micro_f1(truth, predicted)[0] == pytest.approx(f1_score(truth, predicted, average="micro"))
    weights = rng.integers(0, 4, (4, 30))
    for draw, times in zip(micro_f1(truth, predicted, weights), weights, strict=True):
        drawn = np.repeat(np.arange(30), times)
        assert draw == pytest.approx(f1_score(truth[drawn], predicted[drawn], average="micro"))


def test_micro_f1_of_nothing_is_unknown():
    nothing = np.zeros((3, 2), dtype=bool)
    assert np.isnan(micro_f1(nothing, nothing)[0])
    assert np.isnan(micro_f1(nothing[:, :0], nothing[:, :0])[0])
    assert micro_f1(~nothing, nothing)[0] == 0
    assert micro_f1(~nothing, ~nothing)[0] == 1


# CheXbert -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def chexbert(tmp_path):
    """A folder as a user would lay it out, of a CheXbert of 16 dimensions, and its parts."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(REPORTS * 2, tmp_path / "tokenizer", 100)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        initializer_range=1.0,
    )  # fmt: skip
    bert = BertModel(config).eval()
    heads = [torch.nn.Linear(16, 4) for _ in range(13)] + [torch.nn.Linear(16, 2)]
    folder = tmp_path / "chexbert"
    config.save_pretrained(folder)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    weights = {f"module.bert.{name}": value for name, value in bert.state_dict().items()}
    for place, head in enumerate(heads):
        weights |= {f"module.linear_heads.{place}.{name}": value for name, value in head.state_dict().items()}
    torch.save({"epoch": 1, "model_state_dict": weights}, folder / "chexbert.pth")
    return folder, tokenizer, bert, heads, weights


def test_chexbert_labels_are_those_of_its_parts(chexbert):
    folder, tokenizer, bert, heads, _ = chexbert
    expected = []
    for report in REPORTS:  # one at a time, without padding
        with torch.no_grad():
            first = bert(torch.tensor([tokenizer(report)["input_ids"]])).last_hidden_state[0, 0]
            expected.append([int(head(first).argmax()) in (1, 3) for head in heads])
    found = chexbert_labels(REPORTS, folder, batch_size=3)
    assert found.shape == (4, 14)
    np.testing.assert_array_equal(found, np.array(expected))
    assert 0 < found.mean() < 1
    assert (found != found[0]).any()
    assert chexbert_labels([], folder).shape == (0, 14)


def test_present_and_uncertain_count(chexbert):
    folder, *_, weights = chexbert
    for place in range(14):
        weights[f"module.linear_heads.{place}.weight"].zero_()
        bias = weights[f"module.linear_heads.{place}.bias"]
        bias.copy_(torch.eye(4)[place % 4][: len(bias)])
    torch.save({"model_state_dict": weights}, folder / "chexbert.pth")
    assert chexbert_labels(["heart"], folder)[0].tolist() == [place % 4 in (1, 3) for place in range(14)]


def test_a_long_report_is_cut(chexbert, monkeypatch):
    lengths = []

    def spy(self, token_ids, token_mask):
        lengths.append(token_ids.shape[1])
        return torch.zeros(len(token_ids), 14, dtype=torch.bool)

    monkeypatch.setattr(clinical._CheXbert, "forward", spy)
    chexbert_labels([" ".join(["effusion is seen"] * 300)], chexbert[0])
    assert lengths == [512]


def test_chexbert_refusals(chexbert):
    folder, *_, weights = chexbert

    class Evil:
        def __reduce__(self):
            return Path.touch, (folder / "ran",)

    with (folder / "chexbert.pth").open("wb") as file:
        pickle.dump({"model_state_dict": Evil()}, file, protocol=2)
    with pytest.raises(ClinicalError, match=r"chexbert.pth does not hold CheXbert's weights"):
        chexbert_labels(["heart"], folder)
    assert not (folder / "ran").exists()
    del weights["module.linear_heads.3.bias"]
    torch.save({"model_state_dict": weights}, folder / "chexbert.pth")
    with pytest.raises(ClinicalError, match=r"lacks linear_heads.3.bias"):
        chexbert_labels(["heart"], folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ClinicalError, match=r"vocab.txt, and there is no such file; copy it from bert-base-uncased"):
        chexbert_labels(["heart"], folder)


# RadGraph -------------------------------------------------------------------------------------------------------------

FAKE = """
    import os

    class F1RadGraph:
        def __init__(self, reward_level, model_type=None, model_cache_dir=None, cuda=None, **kwargs):
            assert (reward_level, cuda) == ("partial", -1) and not kwargs
            assert os.path.isfile(os.path.join(model_cache_dir, model_type, "config.json"))
            assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
            print("Using device: cpu")

        def __call__(self, refs, hyps):
            assert len(refs) == len(hyps)
            print("working")
            values = [len(set(r.split()) & set(h.split())) / len(set(r.split())) for r, h in zip(refs, hyps)]
            return sum(values) / len(values), values, [], []
"""


@pytest.fixture
def radgraph(tmp_path, monkeypatch):
    """Folder of a model, and what puts a fake package in the interpreter's way."""
    folder = tmp_path / "weights" / "radgraph-xl"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")

    def package(source):
        (tmp_path / "radgraph.py").write_text(textwrap.dedent(source))

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return folder, package


def test_radgraph_scores_each_study_offline(radgraph):
    folder, package = radgraph
    package(FAKE)
    found = radgraph_f1(["no effusion", "höhe"], ["no small left effusion", "heart"], folder)
    np.testing.assert_array_equal(found, [0.5, 0.0])


def test_radgraph_refusals(radgraph):
    folder, package = radgraph
    package("raise AttributeError('BertTokenizer has no attribute encode_plus')")
    with pytest.raises(ClinicalError, match=r"no attribute encode_plus; make an environment with"):
        radgraph_f1(["a"], ["b"], folder)
    with pytest.raises(ClinicalError, match=r"cannot run the interpreter .*nowhere"):
        radgraph_f1(["a"], ["b"], folder, folder / "nowhere")
    package(FAKE.replace("values, []", "values[1:], []"))
    with pytest.raises(ClinicalError, match=r"gave 1 values for 2 reports"):
        radgraph_f1(["a", "b"], ["a", "b"], folder)
    with pytest.raises(ClinicalError, match=r"config.json, and there is no such file"):
        radgraph_f1(["a"], ["b"], folder.parent)
