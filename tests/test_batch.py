"""What travels."""

import torch

from lingula.batch import Batch


def test_a_batch(tiny):
    batch = tiny.batch((2, 1, 3), views=2)
    assert len(batch) == 3
    assert batch.reports.sentence_count == 6
    assert batch.images.shape == (3, 2, 1, tiny.image_size, tiny.image_size)
    assert torch.equal(batch.image, batch.images[:, 0])


def test_it_moves_as_one(tiny):
    batch = tiny.batch((2, 1))
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert moved.images.device.type == moved.rows.device.type == moved.reports.token_ids.device.type == "meta"
    assert moved.reports.meaning is None
    assert (moved.seed, moved.reports.max_sentences) == (batch.seed, 2)
    assert batch.images.device.type == "cpu"


def test_films_without_text_move_too():
    batch = Batch(torch.zeros(2, 1, 1, 4, 4), torch.arange(2), seed=0)
    assert batch.to("meta").reports is None
