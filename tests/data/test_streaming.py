"""Streaming: batches are functions of (seed, epoch, place), whatever the processes, and each fetches few shards."""

import itertools

import fsspec
import numpy as np
import pytest
import torch

from lingula.corpora.synthetic import Synthetic
from lingula.data import shards, streaming
from lingula.data.preparation import prepare
from lingula.data.shards import open_corpus, write_shards
from lingula.data.streaming import StreamLoader, StreamOrder
from lingula.data.tokens import train_tokenizer
from lingula.registry import UserError

URL = "memory://streamed"


@pytest.fixture(scope="module")
def prepared(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    made = prepare(Synthetic(train=106, val=2, test=0, film_size=40), folder, 40, 0, log=lambda line: None)
    return tiny.unreported(made, made.rows("train")[5:6])


@pytest.fixture(scope="module")
def sharded(prepared):
    before, shards.SHARD_BYTES = shards.SHARD_BYTES, 5 * 40 * 40
    write_shards(prepared, URL, log=lambda line: None)
    shards.SHARD_BYTES = before
    yield open_corpus(URL)
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def tokenizer(prepared, tmp_path_factory):
    texts = [s.lower() for report in prepared.reports for s in report]
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 300)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 6)
    monkeypatch.setattr(streaming, "LANES", 4)


def make(sharded, tokenizer, **changes):
    settings = {"image_size": 32, "resize_to": 40, "batch_size": 8, "tokenizer": tokenizer, "seed": 3}
    return StreamLoader(sharded, **{**settings, **changes})


@pytest.mark.parametrize("batch_size", [1, 6, 8, 12, 50])
def test_an_epoch_sees_studies_once_and_its_blocks_name_their_shards(batch_size):
    counts = np.array([5, 5, 2, 5, 5, 5, 1, 5, 5, 3, 5, 5, 5])
    holds = np.repeat(np.arange(len(counts)), counts)
    epochs = []
    for epoch in range(2):
        order = StreamOrder(counts, batch_size, seed=1, epoch=epoch)
        blocks = range(-(-order.length // 6))
        drawn = [order.studies(lane, block) for lane in range(order.lanes) for block in blocks]
        for (lane, block), studies in zip(itertools.product(range(order.lanes), blocks), drawn, strict=True):
            assert set(holds[studies]) == set(order.shards(lane, block))
        epochs.append(np.concatenate(drawn).tolist())
        assert len(epochs[-1]) == len(set(epochs[-1])) == 56 // batch_size * batch_size
        assert set(epochs[-1]) <= set(range(56))
    assert epochs[0] != epochs[1]


def test_every_block_is_shuffled_in_its_own_way():
    orders = [StreamOrder(np.array([48]), 4, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    within = [
        tuple(order.studies(lane, b) - 12 * lane - 6 * b) for order in orders for lane in range(4) for b in (0, 1)
    ]
    assert all(sorted(block) == list(range(6)) for block in within)
    assert len(set(within)) > 20  # of 24


def test_any_number_of_processes_sees_the_same_batches(sharded, tokenizer):
    whole = make(sharded, tokenizer, views=2, sentences="shuffled")
    assert len(whole) == 13  # 105 with a report // 8
    for processes in (2, 4, 8):
        own = [
            make(
                sharded,
                tokenizer,
                views=2,
                sentences="shuffled",
                batch_size=8 // processes,
                rank=r,
                processes=processes,
            )
            for r in range(processes)
        ]
        for step in (0, 1, 2, 12, 13, 30):
            one, parts = whole.batch(step), [loader.batch(step) for loader in own]
            assert torch.equal(one.rows, torch.cat([part.rows for part in parts]))
            assert torch.equal(one.images, torch.cat([part.images for part in parts]))
            assert {one.seed} == {part.seed for part in parts}
            keys = torch.cat([part.reports.sentence_key for part in parts])
            assert torch.equal(one.reports.sentence_key, keys)
            said = [
                ids[mask].tolist()
                for part in parts
                for ids, mask in zip(part.reports.token_ids, part.reports.token_mask, strict=True)
            ]
            assert said == [
                ids[mask].tolist() for ids, mask in zip(one.reports.token_ids, one.reports.token_mask, strict=True)
            ]


def test_a_batch_can_be_made_again_in_the_middle_of_an_epoch(sharded, tokenizer):
    going, fresh = make(sharded, tokenizer), make(sharded, tokenizer)
    batches = [going.batch(step) for step in range(30)]
    for step in (29, 7, 20):
        again = fresh.batch(step)
        assert torch.equal(again.rows, batches[step].rows)
        assert torch.equal(again.images, batches[step].images)
        assert torch.equal(again.reports.token_ids, batches[step].reports.token_ids)
    going.seed = 4  # a new stage
    assert not torch.equal(going.batch(29).rows, batches[29].rows)


def test_films_and_reports_are_those_of_the_corpus(tiny, prepared, sharded, tokenizer):
    position = {study: row for row, study in enumerate(prepared.to_pandas()["study_id"])}
    ids = [study for number in range(len(sharded.counts)) for study in sharded.read(number).study_id]
    seen = set()
    loader = make(sharded, tokenizer, image_size=40)
    for step in range(len(loader)):
        batch = loader.batch(step)
        rows = [position[ids[number]] for number in batch.rows.tolist()]
        films = torch.from_numpy(prepared.pixels[rows]).float() / 127.5 - 1
        assert torch.allclose(batch.image[:, 0], films, atol=1e-6)
        for place, row in enumerate(rows):
            said = "".join(tiny.words_of(batch.reports, place, tokenizer))
            assert said == "".join("".join(prepared.reports[row]).lower().split())
        seen |= set(rows)
        own = batch.reports.sentence_key // streaming.LONGEST
        assert torch.equal(own, batch.rows[batch.reports.report_of_sentence])
    assert len(seen) == 104
    assert seen <= set(prepared.rows("train").tolist()) - {prepared.rows("train")[5]}


def test_films_alone_are_of_all_studies(sharded):
    loader = make(sharded, None)
    assert loader.studies == 106
    assert loader.batch(0).reports is None
    assert 105 in np.concatenate([loader.batch(step).rows.numpy() for step in range(26)])


def test_each_process_fetches_its_own_shards_ahead_and_holds_few(sharded, tokenizer, monkeypatch):
    fetched = {}
    for rank in range(4):
        loader = make(sharded, tokenizer, batch_size=2, rank=rank, processes=4)
        read, own = sharded.read, []
        with monkeypatch.context() as patched:
            patched.setattr(sharded, "read", lambda number, own=own, read=read: own.append(number) or read(number))
            for step in range(len(loader)):
                loader.batch(step)
                assert len(loader._shards) <= 6  # of 21, in one lane
                if step == 0:
                    ahead = StreamOrder(sharded.counts[: sharded.paired], 8, 3, 0).shards(rank, 1)
                    assert set(ahead.tolist()) <= set(loader._shards)
        fetched[rank] = own
    order = StreamOrder(sharded.counts[: sharded.paired], 8, 3, 0)
    for rank, own in fetched.items():
        lane = {int(n) for block in range(-(-order.length // 6)) for n in order.shards(rank, block)}
        assert lane <= set(own)  # and the next epoch's first
        assert len(own) <= len(lane) + 4
    assert sum(map(len, fetched.values())) <= 21 + 3 + 4 * 4


def test_too_few_studies_are_refused(sharded, tokenizer):
    with pytest.raises(UserError, match="synthetic: 105 studies in shards do not fill one batch of 106"):
        make(sharded, tokenizer, batch_size=106)


def test_a_shard_that_cannot_be_fetched_stops_the_run_by_name(sharded, tokenizer, monkeypatch):
    loader = make(sharded, tokenizer)
    monkeypatch.setattr(sharded, "uri", [f"{uri}.gone" for uri in sharded.uri])
    with pytest.raises(UserError, match="cannot read the shard"):
        loader.batch(0)
