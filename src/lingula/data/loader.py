"""Batches from a prepared corpus. Floor 2.

The order of an epoch, every crop and every batch's seed are functions of (seed, stage, epoch, place) only. So any
number of processes sees the same global batches, and a resume in the middle of an epoch needs one number: the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lingula.batch import Batch, Reports, send
from lingula.data.collate import collate_reports
from lingula.data.derived import derived
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import Tokens
from lingula.data.transforms import Augmentation, augment, centre_corners, crop, crop_corners, resize, to_unit_range
from lingula.registry import UserError
from lingula.terminal.progress import progress

SENTENCES_APART = 472_882_027  # from the seed of the views: the luck of a crop is not that of the sentence


def meaning_codes(corpus: PreparedCorpus) -> np.ndarray | None:
    """``(all sentences,)`` int64, equal where two sentences mean the same, -1 unknown; ``None`` where nothing is
    known. Mapped from disk, in the order of their keys."""
    if not corpus.knows("meanings"):
        return None

    def write(folder: Path) -> None:
        code_of: dict[str, int] = {}
        with (folder / "codes.bin").open("wb") as file:
            for (meanings,) in corpus.batches("meanings"):
                codes = [
                    -1 if meaning is None else code_of.setdefault(meaning, len(code_of))
                    for report in meanings
                    for meaning in report
                ]
                file.write(np.asarray(codes, dtype=np.int64).tobytes())

    folder = derived(corpus.folder, f"meanings-{corpus.content_hash}", write)
    return np.asarray(np.memmap(folder / "codes.bin", dtype=np.int64, mode="r"))


class Batches:
    """Batches of films and their reports. Subclasses choose which studies a batch holds, and where these are.

    Args:
        stored: side of the stored films, pixels.
        studies: how many there are to draw from.
        called: what they are, for messages: "kermany: 3250 studies".
        image_size: H = W in pixels of what the encoder sees.
        resize_to: side to which films come before the crop; ``image_size`` for no crop.
        batch_size: B, per process.
        training: shuffle, crop at random and leave out the last, smaller batch; else in order, centre crop, all rows.
        seed: of order, crops and the batches' own seeds.
        device: where batches go; films travel as bytes.
        rank, processes: which part of each global batch is ours. Where this is not training, the first studies come
            again at the end, so that all processes have equally many.
        views: V random views of each film, drawn apart; one centre crop where this is not training.
        augmentation: how a view is drawn.
        sentences: which sentences of a report are read in training, one of :data:`lingula.data.collate.SENTENCES`.
    Raises:
        UserError: where not one batch can be made.
    """

    def __init__(
        self,
        stored: int,
        studies: int,
        called: str,
        image_size: int,
        resize_to: int,
        batch_size: int,
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
        self.stored, self.studies = stored, studies
        self.image_size, self.resize_to, self.batch_size = image_size, resize_to, batch_size
        self.training, self.seed, self.device = training, seed, torch.device(device)
        self.rank, self.processes = rank, processes
        self.views = views if training else 1
        self.augmentation = augmentation or Augmentation()
        self.sentences = sentences if training else "whole"
        everyone = batch_size * processes
        self.steps = studies // everyone if training else -(-studies // everyone)
        if self.steps == 0:
            raise UserError(f"{called} do not fill one batch of {everyone}; choose a smaller --batch_size")

    def __len__(self) -> int:
        """Batches of one epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        """One pass, shown where it takes long."""
        with progress("encoding", -(-self.studies // self.processes), "image") as bar:
            for step in range(self.steps):
                batch = self.batch(step)
                yield batch
                bar.advance(len(batch))

    def batch(self, step: int) -> Batch:
        """The ``step``-th batch, counted over epochs."""
        epoch, place = divmod(step, self.steps)
        rows = self._rows(epoch, place)
        # The batch's own seed differs from step to step, and not from process to process.
        seed = int(np.random.SeedSequence([self.seed, epoch, place]).generate_state(1, np.uint64)[0] >> 1)
        reports = self._reports(rows, self.seed + 1_000_003 * epoch + SENTENCES_APART)
        if reports is not None:
            reports = reports.to(self.device)
            reports.sentences_of_all = self._sentences_of_all(epoch, place)
        keys = send(torch.from_numpy(rows), self.device)
        return Batch(self._images(rows, keys, epoch), keys, seed, reports, step)

    def _rows(self, epoch: int, place: int) -> np.ndarray:
        """This process's ``(B,)`` studies of a batch."""
        raise NotImplementedError

    def _reports(self, rows: np.ndarray, seed: int) -> Reports | None:
        """Of these studies; ``None`` for films alone."""
        raise NotImplementedError

    def _sentences_of_all(self, epoch: int, place: int) -> list[int] | None:
        """The sentences of every process's part of a batch, where this process knows the others' reports."""
        return None

    def _films(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stored films, ``(n, size, size)`` uint8, and where among them these studies' lie."""
        raise NotImplementedError

    def _images(self, rows: np.ndarray, keys: torch.Tensor, epoch: int) -> torch.Tensor:
        """``(B, V, 1, H, W)`` in [-1, 1]."""
        stored, places = self._films(rows)
        room = self.resize_to - self.image_size
        seeds = [self.seed + 1_000_003 * epoch + 15_485_863 * view for view in range(self.views)]
        if self.stored == self.resize_to and (self.augmentation.is_window or not self.training):
            # Windows of films as they are stored: a copy of their rows of pixels, and nothing else.
            if self.training:
                corners = [crop_corners(seed, torch.from_numpy(rows), room) for seed in seeds]
            else:
                corners = [centre_corners(len(rows), room, torch.device("cpu"))]
            side = (self.image_size, self.image_size)
            windows = np.lib.stride_tricks.sliding_window_view(stored, side, axis=(1, 2))
            y, x = torch.stack(corners, dim=1).numpy().transpose(2, 0, 1)  # (B, V) each
            return to_unit_range(send(torch.from_numpy(windows[places[:, None], y, x]), self.device))[:, :, None]
        films = resize(send(torch.from_numpy(stored[places]), self.device), self.resize_to)
        if self.training:
            views = [augment(films, self.augmentation, self.image_size, seed, keys) for seed in seeds]
        else:
            views = [crop(films, centre_corners(len(rows), room, self.device), self.image_size)]
        return to_unit_range(torch.stack(views, dim=1))[:, :, None]


class Loader(Batches):
    """Batches of one split of a prepared corpus.

    Args:
        corpus: prepared.
        rows: the studies to draw from; those without a report are left out where ``tokens`` are given.
        image_size, resize_to, batch_size: as in :class:`Batches`.
        tokens: of the whole corpus; ``None`` for films alone.
        training, seed, device, settings: as in :class:`Batches`.
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
        **settings: Any,
    ) -> None:
        if tokens is not None:
            rows = rows[tokens.sentences[rows] > 0]
        self.corpus, self.rows, self.tokens = corpus, rows, tokens
        self.meaning = meaning_codes(corpus) if tokens is not None else None
        self._shuffled: tuple[tuple[int, int], np.ndarray] | None = None
        called = f"{corpus.name}: {len(rows)} studies{' with a report' if tokens is not None else ''}"
        sizes = (image_size, resize_to, batch_size)
        super().__init__(corpus.size, len(rows), called, *sizes, training, seed, device, **settings)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.training:
            return np.resize(self.rows, -(-len(self.rows) // self.processes) * self.processes)
        key = (self.seed, epoch)  # the seed too: a new stage has its own order
        if self._shuffled is None or self._shuffled[0] != key:
            self._shuffled = (key, np.random.default_rng(key).permutation(self.rows))
        return self._shuffled[1]

    def _rows_of_all(self, epoch: int, place: int) -> np.ndarray:
        """``(processes, B)`` studies."""
        everyone = self._order(epoch)[place * self.batch_size * self.processes :][: self.batch_size * self.processes]
        return everyone.reshape(self.processes, -1)

    def _rows(self, epoch: int, place: int) -> np.ndarray:
        rows: np.ndarray = self._rows_of_all(epoch, place)[self.rank]
        return rows

    def _sentences_of_all(self, epoch: int, place: int) -> list[int] | None:
        assert self.tokens is not None
        counts = self.tokens.sentences[self._rows_of_all(epoch, place)]
        counts = np.minimum(counts, 1) if self.sentences == "one" else counts
        known: list[int] = counts.sum(1).tolist()
        return known

    def _reports(self, rows: np.ndarray, seed: int) -> Reports | None:
        return None if self.tokens is None else collate_reports(self.tokens, rows, self.meaning, self.sentences, seed)

    def _films(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.corpus.pixels, rows
