"""A new task: `lingula evaluate add_a_task:EffectiveRank --run runs/mine`, in this folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.studies import film_loader, ids_of
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.records import id_hash


@dataclass
class EffectiveRank:
    """In how many directions the features of images vary (Roy and Vetterli 2007); collapsed encoders have 1.

    Args:
        split: split that is measured.
    """

    needs: ClassVar[tuple[str, ...]] = ()  # nothing beyond an image encoder
    higher_is_better: ClassVar[dict[str, bool]] = {"effective_rank": True}

    split: Literal["val", "test"] = "test"

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        return [Cell()]  # nothing is trained: one measurement

    @torch.inference_mode()
    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        rows = corpus.rows(self.split)
        for _ in cells:
            loader = film_loader(model, corpus, rows)
            features = torch.cat([model.method.image_encoder(batch.image).pooled for batch in loader]).double()
            values = torch.linalg.svdvals(features - features.mean(0))
            shares = values / values.sum()
            rank = torch.special.entr(shares).sum().exp()
            yield Measured({"effective_rank": float(rank)}, notes={"test_sha256": id_hash(ids_of(corpus, rows))})
