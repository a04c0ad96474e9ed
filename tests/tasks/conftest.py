"""A loader of pairs whose truth is known, and a method that knows it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lingula.batch import ImageEncoding, TextEncoding
from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.tokens import tokenise, train_tokenizer

GRID = (8, 8)
SIZE = 64


@pytest.fixture(scope="session")
def loader(tmp_path_factory):
    """Pairs of 48 synthetic test films of 64 pixels, 12 a batch. Read it only."""
    folder = tmp_path_factory.mktemp("corpus")
    quiet = lambda line: None  # noqa: E731
    corpus = prepare(Synthetic(train=8, val=2, test=48, film_size=SIZE), folder, SIZE, workers=0, log=quiet)
    texts = [s.lower() for report in corpus.reports for s in report]
    tokenizer = train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 400)
    loader = Loader(corpus, corpus.rows("test"), SIZE, SIZE, batch_size=12, tokens=tokenise(corpus.reports, tokenizer))
    loader.tokenizer = tokenizer
    return loader


class Oracle:
    """A method that knows the truth of the loader's corpus, or a wrong one; what it does is set by its arguments."""

    def __init__(self, loader, reads_film=True):
        self.loader = loader
        self.reads_film = reads_film
        self.image_encoder = SimpleNamespace(grid=GRID)
        contents = loader.corpus.to_pandas()["content"]
        self.code = {text: i for i, text in enumerate(sorted(set(contents)))}
        self.rows = None

    def eval(self):
        return self

    def _content(self, rows):
        texts = self.loader.corpus.to_pandas()["content"].to_numpy()[rows]
        return F.one_hot(torch.tensor([self.code[text] for text in texts]), len(self.code)).float()

    def encode_image(self, images):
        # the film is found again by its pixels, so that an oracle needs no labels passed round
        flat = torch.from_numpy(self.loader.corpus.pixels.reshape(len(self.loader.corpus), -1).astype(np.float32))
        rows = torch.cdist(((images.flatten(1) + 1) * 127.5), flat).argmin(1).numpy()
        embedding = self._content(rows)
        return ImageEncoding(None, embedding, embedding[:, None].expand(-1, GRID[0] * GRID[1], -1), GRID)

    def encode_text(self, reports):
        first = self.loader.tokens.first_sentence
        rows = np.searchsorted(first, reports.sentence_key.numpy(), side="right") - 1
        order = np.unique(rows, return_index=True)[1]
        whole = self._content(rows[np.sort(order)])
        # a sentence is what it means; it also carries its report's content
        meaning = F.one_hot(reports.meaning, int(self.loader.meaning.max()) + 1).float()
        return TextEncoding(None, whole, torch.cat([self._content(rows), meaning], dim=1))

    def cross_attention(self, patches, sentences, reports):
        content = patches[reports.report_of_sentence, 0] if self.reads_film else sentences[:, : patches.shape[2]]
        own = 0.1 * sentences[:, patches.shape[2] :]  # enough to tell one's siblings apart, where the film agrees
        return SimpleNamespace(image_to_report=torch.cat([content, own], dim=1))


@pytest.fixture(scope="session")
def oracle_class():
    return Oracle
