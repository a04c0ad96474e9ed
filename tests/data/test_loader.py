"""The loader: order, crops and seeds are functions of (seed, epoch, place), whatever the processes."""

import importlib

import numpy as np
import pytest
import torch

from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.data.transforms import TWO_VIEWS
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


@pytest.mark.parametrize("settings", [{}, {"sentences": "one"}, {"sentences": "swapped"}, {"training": False}], ids=str)
def test_a_process_knows_how_many_sentences_the_others_have(corpus, tokens, settings):
    parts = [list(make(corpus, tokens, batch_size=2, rank=rank, processes=3, **settings)) for rank in range(3)]
    for batches in zip(*parts, strict=True):
        counts = [batch.reports.sentence_count for batch in batches]
        assert all(batch.reports.sentences_of_all == counts for batch in batches)
    assert len({tuple(batch.reports.sentences_of_all) for batch in parts[0]}) > 1 or settings.get("sentences") == "one"


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


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 4), (3, 4), (5, 2), (40, 1)])
def test_processes_share_an_evaluation_equally(corpus, tokens, processes, batch_size):
    rows = corpus.rows("train")
    settings = {"training": False, "batch_size": batch_size, "processes": processes}
    shares = [[batch.rows for batch in make(corpus, tokens, rank=rank, **settings)] for rank in range(processes)]
    assert len({tuple(map(len, share)) for share in shares}) == 1
    everyone = torch.cat([torch.cat(share) for share in shares])
    assert set(everyone.tolist()) == set(rows.tolist())
    assert len(everyone) == -(-22 // processes) * processes


def test_meanings_follow_their_sentences(corpus, tokens):
    reports = make(corpus, tokens).batch(2).reports
    flat = [meaning for row in corpus.to_pandas()["meanings"] for meaning in row]
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


# Views, and sentences at random.


def test_views_are_drawn_apart_and_belong_to_the_film(corpus, tokens):
    loader = make(corpus, None, views=2, augmentation=TWO_VIEWS)
    batch = loader.batch(0)
    assert batch.images.shape == (4, 2, 1, 32, 32)
    assert batch.reports is None
    assert -1 <= batch.images.min() < batch.images.max() <= 1
    assert not torch.equal(batch.images[:, 0], batch.images[:, 1])
    assert torch.equal(batch.images, make(corpus, None, views=2, augmentation=TWO_VIEWS).batch(0).images)
    films = {row: film for step in range(5) for row, film in zip(*_rows_and_images(loader, step), strict=True)}
    later = {row: film for step in range(5, 10) for row, film in zip(*_rows_and_images(loader, step), strict=True)}
    both = films.keys() & later.keys()
    assert len(both) >= 18
    assert not any(torch.equal(films[row], later[row]) for row in both)  # another epoch, other views


def _rows_and_images(loader, step):
    batch = loader.batch(step)
    return batch.rows.tolist(), batch.images


def test_the_first_view_is_the_window_of_before(corpus, tokens):
    one, two = make(corpus, tokens).batch(3), make(corpus, tokens, views=2).batch(3)
    assert torch.equal(one.images[:, 0], two.images[:, 0])
    assert not torch.equal(two.images[:, 0], two.images[:, 1])


def test_what_does_not_train_sees_the_middle_of_whole_films_and_whole_reports(corpus, tokens):
    plain = make(corpus, tokens, training=False)
    changed = make(corpus, tokens, training=False, views=2, augmentation=TWO_VIEWS, sentences="one")
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.reports.token_ids, other.reports.token_ids)


def test_sentences_at_random_change_with_the_epoch(corpus, tokens):
    loader = make(corpus, tokens, sentences="one")
    keys = [
        {r: k for s in range(e * 5, e * 5 + 5) for r, k in zip(*_rows_and_keys(loader, s), strict=True)} for e in (0, 1)
    ]
    both = keys[0].keys() & keys[1].keys()
    assert sum(keys[0][row] != keys[1][row] for row in both) > 0
    assert loader.batch(0).reports.sentence_count == 4


def _rows_and_keys(loader, step):
    batch = loader.batch(step)
    return batch.rows.tolist(), batch.reports.sentence_key.tolist()


def test_the_luck_of_a_sentence_is_not_that_of_the_crop(corpus, tokens, monkeypatch):
    seeds = []
    monkeypatch.setattr("lingula.data.collate.keyed_uniform", _noting(seeds, "lingula.data.collate"))
    monkeypatch.setattr("lingula.data.transforms.keyed_uniform", _noting(seeds, "lingula.data.transforms"))
    make(corpus, tokens, sentences="one", views=2, augmentation=TWO_VIEWS).batch(0)
    assert len(seeds) == len(set(seeds)) == 3  # two views and the sentences


def _noting(seeds, module):
    original = importlib.import_module(module).keyed_uniform

    def keyed_uniform(seed, keys, draws):
        seeds.append(seed)
        return original(seed, keys, draws)

    return keyed_uniform
