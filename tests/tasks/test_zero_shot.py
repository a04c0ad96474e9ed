"""Zero-shot classification, on a method whose embeddings are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lingula.evaluation import Cell
from lingula.registry import UserError
from lingula.tasks.zero_shot import ZeroShot, read_prompts, score_films

LABELS = ["cardiomegaly", "effusion"]


class Reader:
    """Films are their labels and noise; a prompt is the label that it names, negated by "no"."""

    def __init__(self, loader, noise):
        self.loader = loader
        self.text_encoder = SimpleNamespace(max_tokens=512)
        generator = torch.Generator().manual_seed(0)
        labels = torch.from_numpy(loader.corpus.labels(LABELS)) * 2 - 1
        self.film = torch.cat([labels, noise * torch.randn(len(labels), 6, generator=generator)], dim=1)
        self.pixels = torch.from_numpy(loader.corpus.pixels.reshape(len(labels), -1).astype(np.float32))
        self.read = []

    def eval(self):
        return self

    def encode_image(self, images):
        rows = torch.cdist((images.flatten(1) + 1) * 127.5, self.pixels).argmin(1)
        return None, self.film[rows], None

    def encode_text(self, reports):
        embedding = torch.zeros(len(reports.token_ids), 8)
        for place, ids in enumerate(reports.token_ids):
            text = self.loader.tokenizer.decode(ids, skip_special_tokens=True)
            self.read.append(text)
            for column, label in enumerate(LABELS):
                if label in text:
                    embedding[place, column] = -1.0 if " no " in text else 1.0
        return None, embedding, None


@pytest.fixture
def model(loader):
    method = Reader(loader, noise=1.0)
    return SimpleNamespace(
        method=method,
        tokenizer=loader.tokenizer,
        image_size=64,
        resize_to=64,
        batch_size=12,
        device=torch.device("cpu"),
    )


def test_scores_are_differences_of_cosines(loader, model):
    (found,) = ZeroShot(LABELS).measure(model, loader.corpus, [Cell()], 100)
    assert set(model.method.read) == {f"there is {no}{label}." for no in ("", "no ") for label in LABELS}
    rows = loader.corpus.rows("test")
    film = model.method.film[rows].numpy()
    expected = film[:, :2] / np.linalg.norm(film, axis=1, keepdims=True) * 2
    scores = score_films(model, loader.corpus, rows, read_prompts(None, LABELS), exclusive=False)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    labels = loader.corpus.labels(LABELS)[rows]
    assert found.numbers["auroc"] == pytest.approx(np.mean([roc_auc_score(labels[:, c], scores[:, c]) for c in (0, 1)]))
    mean = scores.mean(1)
    one = np.mean([roc_auc_score(labels[:, c], mean) for c in (0, 1)])
    assert found.numbers["auroc_one_direction"] == pytest.approx(one)
    assert abs(one - found.numbers["auroc"]) > 0.01
    assert found.numbers["accuracy"] == pytest.approx(((scores > 0) == labels).mean())
    row = found.row()
    assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]


def test_a_films_score_does_not_depend_on_the_other_films(loader, model):
    rows = loader.corpus.rows("test")
    prompts = read_prompts(None, LABELS)
    together = score_films(model, loader.corpus, rows, prompts, exclusive=False)
    for place in (0, 7, 31):
        alone = score_films(model, loader.corpus, rows[[place]], prompts, exclusive=False)
        np.testing.assert_allclose(alone[0], together[place], atol=1e-6)


def test_exclusive_classes_have_their_own_prompts_only(loader, model, tmp_path):
    model.method.read.clear()
    file = tmp_path / "prompts.yaml"
    file.write_text("cardiomegaly: ['this is cardiomegaly.', 'cardiomegaly is seen.']\neffusion: ['an effusion.']\n")
    prompts = read_prompts(file, LABELS)
    scores = score_films(model, loader.corpus, loader.corpus.rows("test"), prompts, exclusive=True)
    assert not any(" no " in text for text in model.method.read)
    film = model.method.film[loader.corpus.rows("test")].numpy()
    np.testing.assert_allclose(scores, film[:, :2] / np.linalg.norm(film, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("effusion: [a b]\n", "label 'cardiomegaly' needs a list of sentences"),
        ("cardiomegaly: [a b]\nefusion: [a b]\n", "prompts for 'efusion', which is no label here; did you mean"),
        ("cardiomegaly: [a b]\neffusion: {presnt: [a b]}\n", "label 'effusion' needs a list"),
        ("- a\n- b\n", "must be a table of labels and prompts, got list"),
        ("cardiomegaly: [a b]\neffusion: [3]\n", "label 'effusion' needs a list"),
        ("a: [", "cannot read the prompts"),
    ],
)
def test_prompts_that_do_not_fit(tmp_path, text, message):
    (tmp_path / "prompts.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / "prompts.yaml", LABELS)


def test_a_prompt_of_one_word(loader, model):
    prompts = {label: {"present": [label], "absent": []} for label in LABELS}
    with pytest.raises(UserError, match="a prompt needs two words or more, got 'cardiomegaly'"):
        score_films(model, loader.corpus, loader.corpus.rows("test"), prompts, exclusive=True)
