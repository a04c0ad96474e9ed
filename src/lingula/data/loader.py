"""Batches from a prepared corpus. Floor 2.

The order of an epoch, every crop and every batch's seed are functions of (seed, stage, epoch, place) only. So any
number of processes sees the same global batches, and a resume in the middle of an epoch needs one number: the step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lingula.batch import Batch, Reports
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import Tokens
from lingula.data.transforms import centre_corners, crop, crop_corners, resize, to_unit_range
from lingula.registry import UserError


def collate_reports(tokens: Tokens, rows: np.ndarray, meaning: np.ndarray | None = None) -> Reports:
    """Reports of the given rows side by side, without a loop over tokens.

    Args:
        tokens: of the whole corpus.
        rows: ``(B,)`` int64.
        meaning: ``(all sentences,)`` int64 codes, where the truth is known.
    """
    starts, lengths = tokens.offsets[rows], np.diff(tokens.offsets)[rows]
    counts = tokens.sentences[rows]
    first = np.cumsum(counts) - counts  # (B,) number of the batch's sentences before each report
    place = np.arange(lengths.max())
    mask = place < lengths[:, None]  # (B, T)
    source = np.where(mask, starts[:, None] + place, 0)
    local = tokens.sentence[source]
    report_of_sentence = np.repeat(np.arange(len(rows)), counts)
    position = np.arange(counts.sum()) - first[report_of_sentence]
    key = tokens.first_sentence[rows][report_of_sentence] + position
    return Reports(
        token_ids=torch.from_numpy(np.where(mask, tokens.ids[source], tokens.pad).astype(np.int64)),
        token_mask=torch.from_numpy(mask),
        sentence_of_token=torch.from_numpy(np.where(mask & (local >= 0), first[:, None] + local, -1)),
        report_of_sentence=torch.from_numpy(report_of_sentence),
        position_of_sentence=torch.from_numpy(position),
        sentence_key=torch.from_numpy(key),
        max_sentences=int(counts.max()),
        meaning=None if meaning is None else torch.from_numpy(meaning[key]),
    )


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
    ) -> None:
        if resize_to < image_size:
            raise UserError(f"films resized to {resize_to} px cannot be cropped to {image_size} px")
        if tokens is not None:
            rows = rows[tokens.sentences[rows] > 0]
        self.corpus, self.rows, self.tokens = corpus, rows, tokens
        self.image_size, self.resize_to, self.batch_size = image_size, resize_to, batch_size
        self.training, self.seed, self.device = training, seed, torch.device(device)
        self.rank, self.processes = rank, processes
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
            reports = collate_reports(self.tokens, rows, self.meaning).to(self.device)
        keys = torch.from_numpy(rows).to(self.device)
        return Batch(self._images(rows, keys, epoch)[:, None, None], keys, seed, reports)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.training:
            return self.rows
        key = (self.seed, epoch)  # the seed too: a new stage has its own order
        if self._shuffled is None or self._shuffled[0] != key:
            self._shuffled = (key, np.random.default_rng(key).permutation(self.rows))
        return self._shuffled[1]

    def _images(self, rows: np.ndarray, keys: torch.Tensor, epoch: int) -> torch.Tensor:
        films = torch.from_numpy(self.corpus.pixels[rows]).to(self.device, non_blocking=True)
        films = resize(films, self.resize_to)
        room = self.resize_to - self.image_size
        if room:
            if self.training:
                corners = crop_corners(self.seed + 1_000_003 * epoch, keys, room)
            else:
                corners = centre_corners(len(rows), room, self.device)
            films = crop(films, corners, self.image_size)
        return to_unit_range(films)
