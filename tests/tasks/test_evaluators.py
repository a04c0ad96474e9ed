"""Retrieval, pointing, the swap test and the false-negative detector, on methods whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.tasks.false_negatives import false_negatives
from lingula.tasks.pointing import boxes_of_batch, cells_touched, pointing
from lingula.tasks.retrieval import retrieval
from lingula.tasks.swap_test import other_film, swap_test

GRID = (8, 8)
SIZE = 64


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    quiet = lambda line: None  # noqa: E731
    corpus = prepare(Synthetic(train=8, val=2, test=48, film_size=SIZE), folder, SIZE, workers=0, log=quiet)
    texts = [s.lower() for report in corpus.reports for s in report]
    tokens = tokenise(corpus.reports, train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 400))
    return Loader(corpus, corpus.rows("test"), SIZE, SIZE, batch_size=12, tokens=tokens)


class Oracle:
    """A method that knows the truth of the loader's corpus, or a wrong one; what it does is set by its arguments."""

    def __init__(self, loader, reads_film=True):
        self.loader = loader
        self.reads_film = reads_film
        self.image_encoder = SimpleNamespace(grid=GRID)
        contents = loader.corpus.index["content"]
        self.code = {text: i for i, text in enumerate(sorted(set(contents)))}
        self.rows = None

    def eval(self):
        return self

    def _content(self, rows):
        texts = self.loader.corpus.index["content"].to_numpy()[rows]
        return F.one_hot(torch.tensor([self.code[text] for text in texts]), len(self.code)).float()

    def encode_image(self, images):
        # the film is found again by its pixels, so that an oracle needs no labels passed round
        flat = torch.from_numpy(self.loader.corpus.pixels.reshape(len(self.loader.corpus), -1).astype(np.float32))
        rows = torch.cdist(((images.flatten(1) + 1) * 127.5), flat).argmin(1).numpy()
        embedding = self._content(rows)
        return None, embedding, embedding[:, None].expand(-1, GRID[0] * GRID[1], -1)

    def encode_text(self, reports):
        first = self.loader.tokens.first_sentence
        rows = np.searchsorted(first, reports.sentence_key.numpy(), side="right") - 1
        order = np.unique(rows, return_index=True)[1]
        whole = self._content(rows[np.sort(order)])
        # a sentence is what it means; it also carries its report's content
        meaning = F.one_hot(reports.meaning, int(self.loader.meaning.max()) + 1).float()
        return None, whole, torch.cat([self._content(rows), meaning], dim=1)

    def cross_attention(self, patches, sentences, reports):
        content = patches[reports.report_of_sentence, 0] if self.reads_film else sentences[:, : patches.shape[2]]
        own = 0.1 * sentences[:, patches.shape[2] :]  # enough to tell one's siblings apart, where the film agrees
        return SimpleNamespace(image_to_report=torch.cat([content, own], dim=1))


def test_an_oracle_reaches_the_ceiling_and_no_more(loader):
    found = retrieval(Oracle(loader), loader, pool=48)
    assert found["recall_at_5"] == pytest.approx(found["ceiling_at_5"])
    assert found["recall_at_1"] == pytest.approx(found["ceiling_at_1"])
    assert found["chance_at_5"] == pytest.approx(5 / 48)
    assert found["queries"] == 48
    assert found["recall_at_5_low"] <= found["recall_at_5"] <= found["recall_at_5_high"]


def test_a_constant_embedding_is_chance(loader):
    blind = Oracle(loader)
    blind._content = lambda rows: torch.ones(len(rows), len(blind.code))
    found = retrieval(blind, loader, pool=24)
    assert found["recall_at_5"] == pytest.approx(found["chance_at_5"])
    assert found["median_rank"] == pytest.approx(12.5)


def test_the_swap_test_tells_who_reads_the_film(loader):
    reads, guesses = swap_test(Oracle(loader), loader), swap_test(Oracle(loader, reads_film=False), loader)
    assert reads["right"] == guesses["right"] > 0.5
    assert guesses["swapped"] == guesses["right"]  # a method that recognises its own query does as well
    assert reads["swapped"] < 0.1 * reads["right"]
    assert reads["sentences"] == loader.tokens.sentences[loader.rows].sum()
    assert reads["chance"] == pytest.approx(len(loader) / reads["sentences"])


def test_films_are_swapped_between_patients():
    assert other_film(np.array(["a", "a", "b", "c", "c"])).tolist() == [2, 2, 3, 0, 0]
    assert other_film(np.array(["a", "a", "b"])).tolist() == [2, 2, 0]
    assert other_film(np.array(["a", "a"])).tolist() == [-1, -1]


def test_cells_touched_by_boxes():
    assert cells_touched(np.array([0, 0, 8, 8]), (8, 8), 64).nonzero()[0].tolist() == [0]
    assert cells_touched(np.array([7.9, 0, 8.1, 8]), (8, 8), 64).nonzero()[0].tolist() == [0, 1]
    assert cells_touched(np.array([0, 0, 64, 64]), (8, 8), 64).all()
    assert not cells_touched(np.array([-20, 0, -1, 9]), (8, 8), 64).any()  # cropped away


def test_pointing_of_an_oracle_its_opposite_and_chance(loader):
    def method(choose):
        def attend(images, reports):
            weights = torch.zeros(reports.sentence_count, GRID[0] * GRID[1])
            counts = torch.bincount(reports.report_of_sentence, minlength=len(images))
            rows = torch.from_numpy(
                np.unique(np.searchsorted(loader.tokens.first_sentence, reports.sentence_key.numpy(), side="right") - 1)
            )
            for place, _, box in boxes_of_batch(loader, rows, counts):
                weights[place] = choose(torch.from_numpy(cells_touched(box, GRID, SIZE)))
            return SimpleNamespace(sentence_weights=weights)

        return SimpleNamespace(eval=lambda: None, attend=attend, image_encoder=SimpleNamespace(grid=GRID))

    right = pointing(method(lambda cells: cells.float()), loader)
    assert right["value"] == 1.0
    assert right["sentences"] > 40
    assert pointing(method(lambda cells: 1 - cells.float()), loader)["value"] == 0.0
    generator = torch.Generator().manual_seed(0)
    random = pointing(method(lambda cells: torch.rand(len(cells), generator=generator)), loader)
    assert abs(random["value"] - random["chance"]) < 4 * (random["chance"] / right["sentences"]) ** 0.5
    names = set(loader.corpus.label_names)
    assert {key.partition("/")[2] for key in right if "/" in key} <= names


def test_perfect_clusters_catch_every_false_negative(loader):
    class Perfect(Oracle):
        def encode_text(self, reports):
            meaning = F.one_hot(reports.meaning, int(self.loader.meaning.max()) + 1).float()
            return None, None, meaning

        def cross_attention(self, patches, sentences, reports):
            return SimpleNamespace(image_to_report=sentences)

        def find_clusters(self, cross_modal, keys, seed):
            centres = torch.unique(cross_modal, dim=0)
            return centres, (cross_modal @ centres.T).argmax(1)

    found = false_negatives(Perfect(loader), loader)
    assert found["precision"] == found["recall"] == 1.0
    assert 0.0 < found["share"] < 0.3
    assert found["string_precision"] == 1.0  # the same words mean the same
    assert 0.0 < found["string_recall"] < 1.0

    share, pairs = 0, 0  # the share again, by a plain double loop over the strings of the corpus
    flat = loader.corpus.index["meanings"].to_numpy()
    for batch in loader:
        said = [meaning for row in batch.rows.tolist() for meaning in flat[row]]
        for i in range(len(said)):
            for j in range(len(said)):
                share += i != j and said[i] == said[j]
                pairs += i != j
    assert found["share"] == pytest.approx(share / pairs)
    assert found["pairs"] == pairs


def test_one_cluster_for_all_has_full_recall_and_the_base_rate_as_precision(loader):
    class Lump(Oracle):
        def find_clusters(self, cross_modal, keys, seed):
            return cross_modal[:1], torch.zeros(len(cross_modal), dtype=torch.long)

    found = false_negatives(Lump(loader), loader)
    assert found["recall"] == 1.0
    assert found["precision"] == pytest.approx(found["share"])
