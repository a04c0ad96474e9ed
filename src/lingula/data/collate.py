"""Reports side by side: padded, and packed into rows of one length for the text encoder. Floor 2."""

from __future__ import annotations

import bisect

import numpy as np
import torch

from lingula.batch import Packing, Reports
from lingula.data.tokens import Tokens
from lingula.keyed import keyed_uniform
from lingula.registry import UserError

SENTENCES = ("whole", "one", "shuffled", "swapped")
SWAP, MOST_SWAPS = 0.6, 8  # LoVT: the number of swaps is geometric, each is followed by another with this probability


def collate_reports(
    tokens: Tokens,
    rows: np.ndarray,
    meaning: np.ndarray | None = None,
    sentences: str = "whole",
    seed: int = 0,
    keys: np.ndarray | None = None,
) -> Reports:
    """Reports of the given rows side by side, without a loop over tokens.

    Args:
        tokens: of the whole corpus.
        rows: ``(B,)`` int64.
        meaning: ``(all sentences,)`` int64 codes, where the truth is known.
        sentences: ``whole`` reports as they are; ``one`` sentence of each at random, as ConVIRT takes; all of them
            ``shuffled``, as PRIOR; or with a few ``swapped``, as LoVT.
        seed: of the sentences' draw, which is a function of (seed, key).
        keys: ``(B,)`` int64, what the draw of each report goes by; by default its row.
    """
    starts = tokens.offsets[rows]
    lengths = tokens.offsets[np.asarray(rows) + 1] - starts
    counts = tokens.sentences[rows]
    place = np.arange(lengths.max())
    mask = place < lengths[:, None]  # (B, T)
    source = np.where(mask, starts[:, None] + place, 0)
    local, word = tokens.sentence[source], tokens.word[source]
    chosen = np.broadcast_to(np.arange(counts.max()), (len(rows), counts.max()))  # (B, S) old place of each sentence
    if sentences != "whole":
        chosen, counts = draw_sentences(sentences, counts, seed, rows if keys is None else keys)
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
        packing=pack(mask.sum(1)),
    )


def draw_sentences(how: str, counts: np.ndarray, seed: int, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which sentences of each report are read, and in which order.

    Args:
        how: ``one``, ``shuffled`` or ``swapped``.
        counts: ``(B,)`` sentences of each report.
        seed, keys: the draw of a report is a function of (seed, key).
    Returns:
        ``(B, S)`` old place of each sentence, anything beyond its count, and the ``(B,)`` new counts.
    Raises:
        UserError: for another way.
    """
    if how not in SENTENCES:
        raise UserError(f"sentences must be one of {', '.join(SENTENCES)}, got '{how}'")
    most = counts.max()
    uniform = keyed_uniform(seed, torch.from_numpy(keys), max(3 * MOST_SWAPS, int(most))).numpy()
    if how == "one":
        return (uniform[:, :1] * counts[:, None]).astype(np.int64), np.minimum(counts, 1)
    if how == "shuffled":
        late = np.where(np.arange(most) < counts[:, None], 0.0, 1.0)
        return (uniform[:, :most] + late).argsort(1, kind="stable"), counts
    order = np.tile(np.arange(most), (len(keys), 1))
    every, swapping = np.arange(len(keys)), counts > 1
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


ROOMS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5)  # lengths of a row to try, in lengths of the longest report
FLAT = 1024  # tokens at which attention, whose cost grows with the row, costs about as much as all the rest


def pack(lengths: np.ndarray, multiple: int = 8) -> Packing:
    """Lay several reports side by side in one row: the longest first, each into the row that it fills best.

    Of a few lengths of a row, the one that makes the least work is taken.

    Args:
        lengths: ``(B,)`` tokens of each report.
        multiple: L is a multiple of it.
    """
    longest = int(lengths.max())
    rooms = {-(-int(longest * room) // multiple) * multiple for room in ROOMS}
    ways = [(_best_fit(lengths, width), width) for width in sorted(rooms)]
    (row_of, start), width = min(ways, key=lambda way: (way[0][0].max() + 1) * way[1] * (FLAT + way[1]))
    rows = int(row_of.max()) + 1
    place = np.arange(longest)
    real = place < lengths[:, None]  # (B, T)
    slot = np.where(real, (row_of * width + start)[:, None] + place, 0)
    token, report_of, position = (np.full(rows * width, fill) for fill in (0, -1, 0))
    token[slot[real]] = np.flatnonzero(real)
    report_of[slot[real]], position[slot[real]] = np.nonzero(real)
    by_row = [torch.from_numpy(x.reshape(rows, width)) for x in (token, report_of, position)]
    return Packing(by_row[0], by_row[1], by_row[2], torch.from_numpy(slot))


def _best_fit(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of each report and where it starts there, best fit decreasing."""
    row_of, start = np.zeros_like(lengths), np.zeros_like(lengths)
    free: list[tuple[int, int]] = []  # what is left of each row, and its number; sorted
    rows = 0
    for report in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[report])
        place = bisect.bisect_left(free, (length, -1))
        if place < len(free):
            left, row = free.pop(place)
        else:
            left, row, rows = room, rows, rows + 1
        row_of[report], start[report] = row, room - left
        bisect.insort(free, (left - length, row))
    return row_of, start
