"""A method from elsewhere, with a tokenizer, text encoder, image encoder, teacher and score of its own."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lingula
from lingula.batch import ImageEncoding, TextEncoding, TextFeatures
from lingula.commands.evaluate import evaluate
from lingula.commands.pretrain import pretrain
from lingula.data.transforms import TWO_VIEWS
from lingula.losses.cosine import cosine
from lingula.methods import METHODS
from lingula.nn.attention import cosine_maps
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import MethodBase
from lingula.nn.momentum import MomentumEncoder
from lingula.nn.sentences import sentence_means, token_means
from lingula.registry import UserError
from lingula.tasks import TASKS
from lingula.training.checkpoint import checkpoint_folder
from lingula.training.recipe import Stage, from_scratch

WEIGHTS = {"pairs": 1.0, "teacher": 0.5}
TASK_OPTIONS = {
    "classification": {"labels": ["effusion"], "fractions": [1.0], "protocol": "logistic"},
    "detection": {"targets": ["cardiomegaly"], "fractions": [1.0], "epochs": 1},
    "segmentation": {"target": "cardiomegaly", "fractions": [1.0], "epochs": 1},
    "class-retrieval": {"labels": ["effusion", "central_line"], "per_class": 2},
    "zero-shot": {"labels": ["effusion", "cardiomegaly"]},
    "report-generation": {"protocol": "small", "fractions": [1.0], "epochs": 1},
}


class WordGRU(nn.Module):
    """Tokens read by a GRU."""

    max_tokens = 64

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.width = width
        self.embed, self.read = nn.Embedding(vocabulary, width), nn.GRU(width, width, batch_first=True)

    def forward(self, reports):
        tokens, _ = self.read(self.embed(reports.token_ids))
        sentences = sentence_means(tokens, reports.sentence_of_token, reports.sentence_count)
        return TextFeatures(tokens, reports.token_mask, sentences, reports.report_of_sentence)


class Foreign(MethodBase):
    """Pairs by a bilinear score; two views follow what a teacher sees in the third."""

    recipes = {"scratch": from_scratch(Stage(2, WEIGHTS), augmentation=TWO_VIEWS)}  # noqa: RUF012
    views, uses_text = 3, True

    def __init__(self, image_size: int, vocabulary: int, dim: int = 16):
        super().__init__(WEIGHTS, ImageEncoder("small_vit", image_size), WordGRU(vocabulary, dim))
        self.project = nn.Linear(self.image_encoder.width, dim)
        self.between = nn.Linear(dim, dim, bias=False)
        self.teacher = MomentumEncoder(self.image_encoder, 0.9)

    @classmethod
    def make_tokenizer(cls, sentences, folder, vocabulary):
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        words.train_from_iterator(sentences, trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=special))
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
        PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(str(folder))

    def encode_image(self, images):
        found = self.image_encoder(images)
        return ImageEncoding(found, self.project(found.pooled), self.project(found.patches), found.grid)

    def encode_text(self, reports):
        found = self.text_encoder(reports)
        return TextEncoding(found, token_means(found.tokens, found.token_mask), found.sentences)

    def attention_maps(self, images, reports):
        image, text = self.encode_image(images), self.encode_text(reports)
        return cosine_maps(image.patches, text.sentences, reports, image.grid)

    def score(self, images, texts):
        return self.between(images.embedding) @ texts.embedding.T

    def forward(self, batch):
        own = torch.arange(len(batch))
        scores = self.score(self.encode_image(batch.image), self.encode_text(batch.reports))
        taught = self.teacher(batch.images[:, 2]).pooled
        apart = [1 - cosine(self.image_encoder(batch.images[:, v]).pooled, taught).diagonal().mean() for v in (0, 1)]
        return self.weigh({"pairs": nn.functional.cross_entropy(scores, own), "teacher": sum(apart) / 2})

    def after_step(self):
        if self.training:
            self.teacher.follow(self.image_encoder)

    def warnings(self):
        return ["told by the method itself"]


@pytest.fixture(scope="module", autouse=True)
def known():
    METHODS.paths["foreign"] = f"{__name__}:Foreign"
    yield
    del METHODS.paths["foreign"]


def train(corpus, out, **options):
    settings = {"method": "foreign", "recipe": "scratch", "image_size": 48, "batch_size": 8, "quiet": True}
    return pretrain(corpus, out, **{**settings, "epochs": [2.0], "checkpoint_every": 1, **options})


@pytest.fixture(scope="module")
def run(tiny_corpus, tmp_path_factory):
    return train(tiny_corpus, tmp_path_factory.mktemp("foreign") / "run")


def weights_of(run):
    return load_file(checkpoint_folder(run) / "weights.safetensors")


def test_it_is_reloaded_and_its_parts_are_its_own(run):
    model = lingula.load(run)
    assert isinstance(model.method, Foreign)
    assert isinstance(model.method.text_encoder, WordGRU)
    assert model.method.text_encoder.embed.num_embeddings == len(model.tokenizer)
    assert model.tokenizer.tokenize("no effusion") in (["no", "effusion"], ["no", "[UNK]"])  # whole words
    for name, value in weights_of(run).items():
        assert torch.equal(model.method.state_dict()[name], value), name


def test_a_resumed_run_has_the_same_bits(run, tiny_corpus, tmp_path, monkeypatch):
    steps = []

    def stop(self):
        steps.append(1)
        if len(steps) == 4:  # of 6
            raise KeyboardInterrupt
        plain(self)

    plain = Foreign.after_step
    monkeypatch.setattr(Foreign, "after_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_corpus, tmp_path / "run")
    monkeypatch.setattr(Foreign, "after_step", plain)
    pretrain(out=tmp_path / "run", resume=True, quiet=True)
    for name, value in weights_of(run).items():
        assert torch.equal(value, weights_of(tmp_path / "run")[name]), name


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_that_it_has_the_parts_for(name, run):
    task = TASKS[name](**TASK_OPTIONS.get(name, {}))
    if "cross_attention" in task.needs:
        with pytest.raises(UserError, match="needs a method with cross_attention"):
            evaluate(task, run, seeds=[0], bootstrap=5)
        return
    found = evaluate(task, run, seeds=[0], bootstrap=5)
    assert {encoder for encoder, _ in found} == {"foreign", "random"}
    assert all(
        np.isfinite(cell.numbers[next(iter(task.higher_is_better))]) for cells in found.values() for cell in cells
    )


def test_retrieval_ranks_by_its_own_score(run):
    """Not by the cosine: with the score turned over, the best comes last."""
    (cell,) = evaluate(TASKS["retrieval"](), run, seeds=[0], bootstrap=5, baseline=False)["foreign", None]
    model = lingula.load(run)
    plain = Foreign.score
    Foreign.score = lambda self, images, texts: -plain(self, images, texts)
    try:
        (turned,) = TASKS["retrieval"]().measure(model, _corpus(model), [None], 5)
    finally:
        Foreign.score = plain
    assert cell.numbers["median_rank"] + turned.numbers["median_rank"] == pytest.approx(16 + 1)


def _corpus(model):
    from lingula.data.prepared import PreparedCorpus

    return PreparedCorpus.open(model.made["corpus"]["folder"])


def test_it_compiles_and_warns(tiny_corpus, tmp_path, capsys, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **settings: compiled.append(type(self).__name__))
    train(tiny_corpus, tmp_path / "run", compile=True, epochs=[0.4])
    assert compiled == ["ImageEncoder", "WordGRU"]
    assert "warning: stage 1: told by the method itself" in capsys.readouterr().err


def test_what_it_has_of_its_own_cannot_be_named(tiny_corpus, tmp_path):
    with pytest.raises(UserError, match="--text_encoder: method 'foreign' has its own text encoder"):
        train(tiny_corpus, tmp_path / "run", text_encoder="small_bert")
    with pytest.raises(UserError, match="own text encoder cannot checkpoint"):
        train(tiny_corpus, tmp_path / "other", checkpoint_activations=True)


def test_a_weight_of_no_term_stops_the_run(tiny_corpus, tmp_path, monkeypatch):
    more = dataclasses.replace(Foreign.recipes["scratch"], stages=(Stage(2, {**WEIGHTS, "sentence": 2.0}),))
    monkeypatch.setattr(Foreign, "recipes", {"scratch": more})
    with pytest.raises(UserError, match="no loss term 'sentence'"):
        train(tiny_corpus, tmp_path / "run")
