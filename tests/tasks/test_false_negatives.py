"""The false-negative detector, on clusters whose answers are known."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from lingula.batch import TextEncoding
from lingula.tasks.false_negatives import false_negatives


def test_perfect_clusters_catch_every_false_negative(loader, oracle_class):
    class Perfect(oracle_class):
        def encode_text(self, reports):
            meaning = F.one_hot(reports.meaning, int(self.loader.meaning.max()) + 1).float()
            return TextEncoding(None, None, meaning)

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
    flat = loader.corpus.to_pandas()["meanings"].to_numpy()
    for batch in loader:
        said = [meaning for row in batch.rows.tolist() for meaning in flat[row]]
        for i in range(len(said)):
            for j in range(len(said)):
                share += i != j and said[i] == said[j]
                pairs += i != j
    assert found["share"] == pytest.approx(share / pairs)
    assert found["pairs"] == pairs


def test_one_cluster_for_all_has_full_recall_and_the_base_rate_as_precision(loader, oracle_class):
    class Lump(oracle_class):
        def find_clusters(self, cross_modal, keys, seed):
            return cross_modal[:1], torch.zeros(len(cross_modal), dtype=torch.long)

    found = false_negatives(Lump(loader), loader)
    assert found["recall"] == 1.0
    assert found["precision"] == pytest.approx(found["share"])
