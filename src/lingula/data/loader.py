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
from lingula.data.transforms import Augmentation, augment, centre_corners, crop, resize, to_unit_range
from lingula.keyed import keyed_uniform
from lingula.registry import UserError

SENTENCES = ("whole", "one", "shuffled", "swapped")
SENTENCES_APART = 472_882_027  # from the seed of the views: the luck of a crop is not that of the sentence
SWAP, MOST_SWAPS = 0.6, 8  # LoVT: the number of swaps is geometric, each is followed by another with this probability


def collate_reports(
    tokens: Tokens, rows: np.ndarray, meaning: np.ndarray | None = None, sentences: str = "whole", seed: int = 0
) -> Reports:
    """Reports of the given rows side by side, without a loop over tokens.

    Args:
        tokens: of the whole corpus.
        rows: ``(B,)`` int64.
        meaning: ``(all sentences,)`` int64 codes, where the truth is known.
        sentences: ``whole`` reports as they are; ``one`` sentence of each at random, as ConVIRT takes; all of them
            ``shuffled``, as PRIOR; or with a few ``swapped``, as LoVT.
        seed: of the sentences' draw, which is a function of (seed, row).
    """
    starts, lengths = tokens.offsets[rows], np.diff(tokens.offsets)[rows]
    counts = tokens.sentences[rows]
    place = np.arange(lengths.max())
    mask = place < lengths[:, None]  # (B, T)
    source = np.where(mask, starts[:, None] + place, 0)
    local, word = tokens.sentence[source], tokens.word[source]
    chosen = np.broadcast_to(np.arange(counts.max()), (len(rows), counts.max()))  # (B, S) old place of each sentence
    if sentences != "whole":
        chosen, counts = draw_sentences(sentences, counts, seed, rows)
        source, local, word, mask = _rearranged(source, local, word, mask, chosen)
    first = np.cumsum(counts) - counts  # (B,) number of the batch's sentences before each report
    report_of_sentence = np.repeat(np.arange(len(rows)), counts)
    position = np.arange(counts.sum()) - first[report_of_sentence]
    key = tokens.first_sentence[rows][report_of_sentence] + chosen[report_of_sentence, position]
    inside = mask & (local >= 0)
    return Reports(
        token_ids=torch.from_numpy(np.where(mask, tokens.ids[source], tokens.pad).astype(np.int64)),
        token_mask=torch.from_numpy(mask),
        sentence_of_token=torch.from_numpy(np.where(inside, first[:, None] + local, -1)),
        word_of_token=torch.from_numpy(np.where(inside, word, -1).astype(np.int64)),
        report_of_sentence=torch.from_numpy(report_of_sentence),
        position_of_sentence=torch.from_numpy(position),
        sentence_key=torch.from_numpy(key),
        max_sentences=int(counts.max()),
        max_words=int(word.max(initial=-1, where=inside)) + 1,
        meaning=None if meaning is None else torch.from_numpy(meaning[key]),
    )


def draw_sentences(how: str, counts: np.ndarray, seed: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which sentences of each report are read, and in which order.

    Args:
        how: ``one``, ``shuffled`` or ``swapped``.
        counts: ``(B,)`` sentences of each report.
        seed, rows: the draw of a report is a function of (seed, row).
    Returns:
        ``(B, S)`` old place of each sentence, anything beyond its count, and the ``(B,)`` new counts.
    Raises:
        UserError: for another way.
    """
    if how not in SENTENCES:
        raise UserError(f"sentences must be one of {', '.join(SENTENCES)}, got '{how}'")
    most = counts.max()
    uniform = keyed_uniform(seed, torch.from_numpy(rows), max(3 * MOST_SWAPS, int(most))).numpy()
    if how == "one":
        return (uniform[:, :1] * counts[:, None]).astype(np.int64), np.minimum(counts, 1)
    if how == "shuffled":
        late = np.where(np.arange(most) < counts[:, None], 0.0, 1.0)
        return (uniform[:, :most] + late).argsort(1, kind="stable"), counts
    order = np.tile(np.arange(most), (len(rows), 1))
    every, swapping = np.arange(len(rows)), counts > 1
    for swap in range(MOST_SWAPS):
        more, one, other = uniform[:, 3 * swap], uniform[:, 3 * swap + 1], uniform[:, 3 * swap + 2]
        swapping = swapping & (more < SWAP)
        a = np.where(swapping, one * counts, 0).astype(np.int64)
        b = np.where(swapping, other * counts, 0).astype(np.int64)
        order[every, a], order[every, b] = order[every, b], order[every, a]
    return order, counts


def _rearranged(
    source: np.ndarray, local: np.ndarray, word: np.ndarray, mask: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The tokens, ``(B, T)`` each, of the chosen sentences in their new order, and their words numbered anew."""
    reports, most = len(source), int(local.max(initial=0)) + 1
    left_out = most + 1
    rank = np.full((reports, most + 1), left_out)  # of each old sentence; the last column takes what is none
    places = np.broadcast_to(np.arange(chosen.shape[1]), chosen.shape)
    np.put_along_axis(rank, np.minimum(chosen, most)[:, ::-1], places[:, ::-1], axis=1)
    special = mask & (local < 0)
    of_token = np.take_along_axis(rank, np.where(local < 0, most, local).astype(np.int64), axis=1)
    of_token = np.where(special, np.where(np.arange(source.shape[1]) == 0, -1, most), of_token)  # [CLS] first, [SEP]
    of_token = np.where(mask, of_token, left_out)
    order = of_token.argsort(1, kind="stable")
    source, local, word, of_token = (np.take_along_axis(x, order, 1) for x in (source, of_token, word, of_token))
    mask = of_token < left_out
    width = max(1, int(mask.sum(1).max()))
    source, local, word, mask = (x[:, :width] for x in (source, local, word, mask))
    inside = mask & (local >= 0) & (local < most)
    new_word = np.diff(word, axis=1, prepend=-1) != 0  # no two words of a report have one number
    word = np.where(inside, (new_word & inside).cumsum(1) - 1, -1)
    return np.where(mask, source, 0), np.where(inside, local, -1), word, mask


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
        sentences: which sentences of a report are read in training, one of :data:`SENTENCES`.
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
        films = torch.from_numpy(self.corpus.pixels[rows]).to(self.device, non_blocking=True)
        films = resize(films, self.resize_to)
        if not self.training:
            corners = centre_corners(len(rows), self.resize_to - self.image_size, self.device)
            return to_unit_range(crop(films, corners, self.image_size))[:, None, None]
        seed = self.seed + 1_000_003 * epoch
        views = [
            augment(films, self.augmentation, self.image_size, seed + 15_485_863 * view, keys)
            for view in range(self.views)
        ]
        return to_unit_range(torch.stack(views, dim=1))[:, :, None]
