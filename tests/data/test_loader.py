"""The loader: order, crops and seeds are functions of (seed, epoch, place), whatever the processes."""

import numpy as np
import pytest
import torch

from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.registry import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return prepare(Synthetic(train=22, val=4, test=4, film_size=40), folder, 40, workers=0, log=lambda line: None)


@pytest.fixture(scope="module")
def tokens(corpus, tmp_path_factory):
    texts = [s.lower() for report in corpus.reports for s in report]
    return tokenise(corpus.reports, train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 300))


def make(corpus, tokens, **changes):
    settings = {"image_size": 32, "resize_to": 40, "batch_size": 4, "tokens": tokens, "training": True, "seed": 3}
    return Loader(corpus, corpus.rows("train"), **{**settings, **changes})


def test_an_epoch_sees_every_film_once_in_another_order_each_time(corpus, tokens):
    loader = make(corpus, tokens)
    assert len(loader) == 5  # 22 // 4: the last, smaller batch is left out in training
    epochs = [[loader.batch(e * 5 + i).rows.tolist() for i in range(5)] for e in range(2)]
    for epoch in epochs:
        rows = [row for batch in epoch for row in batch]
        assert len(set(rows)) == 20
        assert set(rows) <= set(corpus.rows("train").tolist())
    assert epochs[0] != epochs[1]


def test_two_processes_see_the_global_batches_of_one(corpus, tokens):
    whole = make(corpus, tokens)
    halves = [make(corpus, tokens, batch_size=2, rank=rank, processes=2) for rank in (0, 1)]
    for step in range(7):
        one, parts = whole.batch(step), [half.batch(step) for half in halves]
        assert torch.equal(one.rows, torch.cat([part.rows for part in parts]))
        assert torch.equal(one.images, torch.cat([part.images for part in parts]))
        assert one.seed == parts[0].seed == parts[1].seed
        keys = torch.cat([part.reports.sentence_key for part in parts])
        assert torch.equal(one.reports.sentence_key, keys)


def test_a_batch_can_be_made_again_and_seeds_differ(corpus, tokens):
    loader, again = make(corpus, tokens), make(corpus, tokens)
    for _ in range(3):
        again.batch(11)
    assert torch.equal(loader.batch(7).images, again.batch(7).images)
    assert len({loader.batch(step).seed for step in range(10)}) == 10


def test_evaluation_takes_all_films_in_order_and_the_centre(corpus, tokens):
    loader = make(corpus, tokens, training=False)
    batches = list(loader)
    assert torch.cat([b.rows for b in batches]).tolist() == corpus.rows("train").tolist()
    film = corpus.pixels[batches[0].rows[1]][4:36, 4:36].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(batches[0].images[1, 0, 0].numpy(), film, atol=1e-6)


def test_meanings_follow_their_sentences(corpus, tokens):
    reports = make(corpus, tokens).batch(2).reports
    flat = [meaning for row in corpus.index["meanings"] for meaning in row]
    names = [flat[key] for key in reports.sentence_key.tolist()]
    for i in range(len(names)):
        for j in range(len(names)):
            assert (reports.meaning[i] == reports.meaning[j]).item() == (names[i] == names[j])


def test_too_few_studies_and_a_crop_larger_than_the_film_are_refused(corpus, tokens):
    with pytest.raises(UserError, match="22 studies with a report do not fill one batch of 64"):
        make(corpus, tokens, batch_size=64)
    with pytest.raises(UserError, match="cannot be cropped"):
        make(corpus, tokens, image_size=64)


def test_another_seed_on_the_same_loader_is_another_order(corpus, tokens):
    loader = make(corpus, tokens)
    loader.batch(0)
    loader.seed = 11  # what a new stage does
    assert torch.equal(loader.batch(0).rows, make(corpus, tokens, seed=11).batch(0).rows)
