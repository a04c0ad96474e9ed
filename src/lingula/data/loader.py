"""Batches from a prepared corpus. Floor 2.

The order of an epoch, every crop and every batch's seed are functions of (seed, stage, epoch, place) only. So any
number of processes sees the same global batches, and a resume in the middle of an epoch needs one number: the step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lingula.batch import Batch
from lingula.data.collate import collate_reports
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import Tokens
from lingula.data.transforms import Augmentation, augment, centre_corners, crop, crop_corners, resize, to_unit_range
from lingula.registry import UserError

SENTENCES_APART = 472_882_027  # from the seed of the views: the luck of a crop is not that of the sentence


def meaning_codes(corpus: PreparedCorpus) -> np.ndarray | None:
    """``(all sentences,)`` int64, equal where two sentences mean the same, -1 unknown; ``None`` where nothing is
    known."""
    import pandas as pd

    flat = [meaning for row in corpus.index["meanings"] for meaning in row]
    if not any(meaning is not None for meaning in flat):
        return None
    return pd.factorize(np.asarray(flat, dtype=object))[0].astype(np.int64)


class Loader:
    """Batches of one split.

    Args:
        corpus: prepared.
        rows: the studies to draw from; those without a report are left out where ``tokens`` are given.
        image_size: H = W in pixels of what the encoder sees.
        resize_to: side to which films come before the crop; ``image_size`` for no crop.
        batch_size: B, per process.
        tokens: of the whole corpus; ``None`` for films alone.
        training: shuffle, crop at random and leave out the last, smaller batch; else in order, centre crop, all rows.
        seed: of order, crops and the batches' own seeds.
        device: where batches go; films travel as bytes.
        rank, processes: which part of each global batch is ours.
        views: V random views of each film, drawn apart; one centre crop where this is not training.
        augmentation: how a view is drawn.
        sentences: which sentences of a report are read in training, one of :data:`lingula.data.collate.SENTENCES`.
    Raises:
        UserError: where not one batch can be made.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        rows: np.ndarray,
        image_size: int,
        resize_to: int,
        batch_size: int,
        tokens: Tokens | None = None,
        training: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        processes: int = 1,
        views: int = 1,
        augmentation: Augmentation | None = None,
        sentences: str = "whole",
    ) -> None:
        if resize_to < image_size:
            raise UserError(f"films resized to {resize_to} px cannot be cropped to {image_size} px")
        if tokens is not None:
            rows = rows[tokens.sentences[rows] > 0]
        self.corpus, self.rows, self.tokens = corpus, rows, tokens
        self.image_size, self.resize_to, self.batch_size = image_size, resize_to, batch_size
        self.training, self.seed, self.device = training, seed, torch.device(device)
        self.rank, self.processes = rank, processes
        self.views = views if training else 1
        self.augmentation = augmentation or Augmentation()
        self.sentences = sentences if training else "whole"
        self._shuffled: tuple[tuple[int, int], np.ndarray] | None = None
        self.meaning = meaning_codes(corpus) if tokens is not None else None
        everyone = batch_size * processes
        self.steps = len(rows) // everyone if training else -(-len(rows) // everyone)
        if self.steps == 0:
            raise UserError(
                f"{corpus.name}: {len(rows)} studies{' with a report' if tokens is not None else ''} do not fill one "
                f"batch of {everyone}; choose a smaller --batch_size"
            )

    def __len__(self) -> int:
        """Batches of one epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        """One pass."""
        for step in range(self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """The ``step``-th batch, counted over epochs."""
        epoch, place = divmod(step, self.steps)
        rows = self._order(epoch)[place * self.batch_size * self.processes :][: self.batch_size * self.processes]
        rows = rows[self.rank * self.batch_size :][: self.batch_size]
        # The batch's own seed differs from step to step, and not from process to process.
        seed = int(np.random.SeedSequence([self.seed, epoch, place]).generate_state(1, np.uint64)[0] >> 1)
        reports = None
        if self.tokens is not None:
            drawn = self.seed + 1_000_003 * epoch + SENTENCES_APART
            reports = collate_reports(self.tokens, rows, self.meaning, self.sentences, drawn).to(self.device)
        keys = torch.from_numpy(rows).to(self.device)
        return Batch(self._images(rows, keys, epoch), keys, seed, reports, step)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.training:
            return self.rows
        key = (self.seed, epoch)  # the seed too: a new stage has its own order
        if self._shuffled is None or self._shuffled[0] != key:
            self._shuffled = (key, np.random.default_rng(key).permutation(self.rows))
        return self._shuffled[1]

    def _images(self, rows: np.ndarray, keys: torch.Tensor, epoch: int) -> torch.Tensor:
        """``(B, V, 1, H, W)`` in [-1, 1]."""
        room = self.resize_to - self.image_size
        seeds = [self.seed + 1_000_003 * epoch + 15_485_863 * view for view in range(self.views)]
        if self.corpus.size == self.resize_to and (self.augmentation.is_window or not self.training):
            # Windows of films as they are stored: a copy of their rows of pixels, and nothing else.
            if self.training:
                corners = [crop_corners(seed, torch.from_numpy(rows), room) for seed in seeds]
            else:
                corners = [centre_corners(len(rows), room, torch.device("cpu"))]
            windows = torch.stack([self._windows(rows, of_view) for of_view in corners], dim=1)
            return to_unit_range(windows.to(self.device, non_blocking=True))[:, :, None]
        films = resize(torch.from_numpy(self.corpus.pixels[rows]).to(self.device, non_blocking=True), self.resize_to)
        if self.training:
            views = [augment(films, self.augmentation, self.image_size, seed, keys) for seed in seeds]
        else:
            views = [crop(films, centre_corners(len(rows), room, self.device), self.image_size)]
        return to_unit_range(torch.stack(views, dim=1))[:, :, None]

    def _windows(self, rows: np.ndarray, corners: torch.Tensor) -> torch.Tensor:
        """``(B, H, W)`` uint8: of each film the window at its ``(B, 2)`` corner (y, x)."""
        side = (self.image_size, self.image_size)
        windows = np.lib.stride_tricks.sliding_window_view(self.corpus.pixels, side, axis=(1, 2))
        return torch.from_numpy(windows[rows, *corners.numpy().T])
