"""Batches from shards. Floor 2.

As with :class:`lingula.data.loader.Loader`, a batch is a function of (seed, epoch, place) only. Its studies come from
the whole corpus, and each process fetches few shards: an epoch is a fresh order of all shards, laid end to end and cut
into lanes, 64 or as many as the global batch can be dealt to in equal parts. Every batch takes its share from each
lane, and a process serves neighbouring lanes. Within a lane, blocks of 256 studies are shuffled. So any number of
processes sees the same global batches, and where it divides the lanes no two of them fetch the same shard, but for
those at the lanes' ends.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lingula.batch import Reports
from lingula.data.collate import collate_reports
from lingula.data.loader import Batches
from lingula.data.shards import Shard, ShardedCorpus
from lingula.data.tokens import tokenise

LANES = 64
BLOCK = 256  # studies
FETCHES = 8  # at a time
LONGEST = 1024  # sentences of a report: the key of a sentence is LONGEST * study + place


class StreamOrder:
    """Which studies each batch of an epoch holds.

    Args:
        counts: ``(shards,)`` studies of each shard.
        batch_size: of all processes together.
        seed: of the order.
        epoch: its number.
    """

    def __init__(self, counts: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
        self.lanes = math.gcd(batch_size, LANES)
        self.share = batch_size // self.lanes  # of a lane in a batch
        self.length = int(counts.sum()) // batch_size * self.share  # of a lane
        self._key = (seed, epoch)
        self._shards = np.random.default_rng(self._key).permutation(len(counts))
        self._ends = np.cumsum(counts[self._shards])
        self._first = (np.cumsum(counts) - counts)[self._shards] - (self._ends - counts[self._shards])

    def studies(self, lane: int, block: int) -> np.ndarray:
        """The shuffled studies of a block of a lane, by their numbers in the corpus; ``(256,)``, fewer in the last."""
        start, stop = self._reach(lane, block)
        along = start + np.random.default_rng([*self._key, lane, block]).permutation(stop - start)
        return along + self._first[np.searchsorted(self._ends, along, side="right")]

    def shards(self, lane: int, block: int) -> np.ndarray:
        """The shards that hold them."""
        start, stop = self._reach(lane, block)
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        return self._shards[first : last + 1]

    def _reach(self, lane: int, block: int) -> tuple[int, int]:
        """From where to where a block lies among all studies, in this epoch's order of the shards."""
        start, end = lane * self.length + block * BLOCK, (lane + 1) * self.length
        return start, min(start + BLOCK, end)


class StreamLoader(Batches):
    """Training batches from shards, which are fetched ahead of their turn.

    In memory are the shards of the block that each of this process's lanes is at, and of the next: about three of 16
    MiB a lane, and the 64 lanes are those of all processes together.

    Args:
        corpus: shards.
        image_size, resize_to, batch_size, settings: as in :class:`lingula.data.loader.Batches`.
        tokenizer: of the reports; ``None`` for films alone, with and without a report.
        max_tokens: the longest report, specials included.
    Raises:
        UserError: where not one batch can be made.
    """

    def __init__(
        self,
        corpus: ShardedCorpus,
        image_size: int,
        resize_to: int,
        batch_size: int,
        tokenizer: Any = None,
        max_tokens: int = 256,
        **settings: Any,
    ) -> None:
        self.corpus, self.tokenizer, self.max_tokens = corpus, tokenizer, max_tokens
        self._counts = corpus.counts[: corpus.paired] if tokenizer is not None else corpus.counts
        self._ends = np.cumsum(self._counts)
        self._shards: dict[int, Future[Shard]] = {}
        self._orders: dict[tuple[int, int], StreamOrder] = {}
        self._studies: dict[tuple[int, int], np.ndarray] = {}
        self._here: tuple[int, int, int] | None = None  # seed, epoch and block of what is held
        studies = int(self._counts.sum())
        called = f"{corpus.name}: {studies} studies in shards"
        sizes = (image_size, resize_to, batch_size)
        super().__init__(corpus.size, studies, called, *sizes, training=True, **settings)

    def _rows(self, epoch: int, place: int) -> np.ndarray:
        order = self._order(epoch)
        slots = np.arange(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        lane_of, along = slots // order.share, place * order.share + slots % order.share
        block_of = along // BLOCK
        self._hold(epoch, int(block_of.min()), np.unique(lane_of))
        rows = np.empty(self.batch_size, dtype=np.int64)
        for lane, block in {*zip(lane_of.tolist(), block_of.tolist(), strict=True)}:
            here = (lane_of == lane) & (block_of == block)
            if (lane, block) not in self._studies:
                self._studies[lane, block] = order.studies(lane, block)
            rows[here] = self._studies[lane, block][along[here] % BLOCK]
        return rows

    def _films(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.stack([shard.pixels[place] for shard, place in self._places(rows)]), np.arange(len(rows))

    def _reports(self, rows: np.ndarray, seed: int) -> Reports | None:
        if self.tokenizer is None:
            return None
        texts = [shard.sentences[place] for shard, place in self._places(rows)]
        tokens = tokenise(texts, self.tokenizer, self.max_tokens, most_unknown=1.0)
        reports = collate_reports(tokens, np.arange(len(rows)), None, self.sentences, seed, keys=rows)
        of_batch, of_corpus = tokens.first_sentence[:-1], rows * LONGEST
        reports.sentence_key += torch.from_numpy(of_corpus - of_batch)[reports.report_of_sentence]
        return reports

    def _places(self, rows: np.ndarray) -> list[tuple[Shard, int]]:
        """The shard of each study, and its place there."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        places = rows - (self._ends - self._counts)[numbers]
        shards = {number: self._ask(number).result() for number in np.unique(numbers).tolist()}
        return [(shards[number], place) for number, place in zip(numbers.tolist(), places.tolist(), strict=True)]

    def _order(self, epoch: int) -> StreamOrder:
        key = (self.seed, epoch)
        if key not in self._orders:
            recent = list(self._orders.items())[-1:]
            order = StreamOrder(self._counts, self.batch_size * self.processes, *key)
            self._orders = {**dict(recent), key: order}
        return self._orders[key]

    def _hold(self, epoch: int, block: int, lanes: np.ndarray) -> None:
        """Ask for the shards of a block and of the next, and let go of all others."""
        here = (self.seed, epoch, block)
        if here == self._here:
            return
        self._here, self._studies = here, {}
        order = self._order(epoch)
        after = (order, block + 1) if (block + 1) * BLOCK < order.length else (self._order(epoch + 1), 0)
        blocks = ((order, block), after)
        wanted = {int(n) for of, number in blocks for lane in lanes for n in of.shards(lane, number)}
        self._shards = {number: coming for number, coming in self._shards.items() if number in wanted}
        for number in wanted:
            self._ask(number)

    def _ask(self, number: int) -> Future[Shard]:
        if number not in self._shards:
            self._shards[number] = self._fetchers.submit(self.corpus.read, number)
        return self._shards[number]

    @cached_property
    def _fetchers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(FETCHES, thread_name_prefix="shards")
