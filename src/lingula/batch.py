"""What travels from the loader to the encoders and from the encoders to the heads. Floor 0: tensors, nothing of ours.

Letters: ``B`` pairs, ``V`` views of a film, ``T`` tokens of a report, ``S`` sentences of a report (ragged), ``N``
sentences of the batch (the sum of S), ``W`` words of a report, ``P`` patches, ``D`` width, ``C`` channels, ``H, W``
pixels. Masks are True where something is real.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Moved = TypeVar("Moved", bound="Movable")


def send(x: Tensor, device: torch.device | str) -> Tensor:
    """To a device without making the host wait: a GPU takes it from pinned memory."""
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


class Movable:
    """A dataclass of tensors that moves between devices as one."""

    def to(self: Moved, device: torch.device | str) -> Moved:
        moved: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor | Movable):
                value = send(value, device) if isinstance(value, Tensor) else value.to(device)
            elif isinstance(value, list) and value and isinstance(value[0], Tensor):
                value = [send(tensor, device) for tensor in value]
            moved[field.name] = value
        return type(self)(**moved)


@dataclass
class Packing(Movable):
    """Several reports in one row, so that a text encoder computes next to nothing on padding: R rows of L slots.

    Attributes:
        token: ``(R, L)`` int64, the place in the flattened ``(B * T)`` tokens; 0 in an empty slot.
        report: ``(R, L)`` int64, whose token it is; -1 in an empty slot. Tokens see those of their own report.
        position: ``(R, L)`` int64, its place in its own report.
        slot: ``(B, T)`` int64, where in the flattened ``(R * L)`` slots a token is; 0 for padding.
    """

    token: Tensor
    report: Tensor
    position: Tensor
    slot: Tensor


@dataclass
class Reports(Movable):
    """Tokenised reports, their sentences kept apart.

    Attributes:
        token_ids: ``(B, T)`` int64.
        token_mask: ``(B, T)`` bool.
        sentence_of_token: ``(B, T)`` int64 in ``[0, N)``; -1 for ``[CLS]``, ``[SEP]`` and padding.
        word_of_token: ``(B, T)`` int64 in ``[0, W)``, the place of the token's word in its own report, from 0; -1 as
            above. A word may be several word pieces.
        report_of_sentence: ``(N,)`` int64 in ``[0, B)``, ascending.
        position_of_sentence: ``(N,)`` int64, the sentence's place in its own report, from 0.
        sentence_key: ``(N,)`` int64, the same for the same sentence of the corpus in whatever batch it comes.
        max_sentences, max_words: the largest S and W, known on the host so that nobody has to ask the device.
        meaning: ``(N,)`` int64, equal where two sentences mean the same; -1 unknown. ``None`` where no truth is known.
        packing: the same tokens for an encoder that can read packed rows; ``None`` where nobody packed them.
        sentences_of_all: N of every process in the order of the ranks; ``None`` where the loader does not know it, and
            the processes have to ask each other (:func:`lingula.gather.row_counts`).
    """

    token_ids: Tensor
    token_mask: Tensor
    sentence_of_token: Tensor
    word_of_token: Tensor
    report_of_sentence: Tensor
    position_of_sentence: Tensor
    sentence_key: Tensor
    max_sentences: int
    max_words: int
    meaning: Tensor | None = None
    packing: Packing | None = None
    sentences_of_all: list[int] | None = None

    @property
    def sentence_count(self) -> int:
        """N, the sentences of the batch."""
        return len(self.report_of_sentence)


@dataclass
class Batch(Movable):
    """What a method sees of one step.

    Attributes:
        images: ``(B, V, 1, H, W)`` float32 in [-1, 1].
        rows: ``(B,)`` int64, each film's row in the prepared corpus.
        seed: changes every step, is the same on every process, and comes back on a resume.
        reports: the tokenised reports; ``None`` for films without text.
        step: the batch's number, counted over the epochs of its stage.
    """

    images: Tensor
    rows: Tensor
    seed: int
    reports: Reports | None = None
    step: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image(self) -> Tensor:
        """``(B, 1, H, W)``: the first view."""
        return self.images[:, 0]


@dataclass
class ImageFeatures(Movable):
    """What leaves an image encoder.

    Attributes:
        pooled: ``(B, C)`` mean over the places; what a linear probe reads.
        patches: ``(B, P, C)`` one row a place, in reading order.
        grid: ``(h, w)`` with ``h * w == P``.
        maps: the encoder's feature pyramid, fine to coarse, each ``(B, C, H, W)``.
    """

    pooled: Tensor
    patches: Tensor
    grid: tuple[int, int]
    maps: list[Tensor]


@dataclass
class TextFeatures(Movable):
    """What leaves a text encoder.

    Attributes:
        tokens: ``(B, T, C)`` last hidden states.
        token_mask: ``(B, T)`` bool.
        sentences: ``(N, C)`` mean of each sentence's token states.
        report_of_sentence: ``(N,)`` int64.
    """

    tokens: Tensor
    token_mask: Tensor
    sentences: Tensor
    report_of_sentence: Tensor


@dataclass
class ImageEncoding(Movable):
    """What a method makes of images: how they leave the encoder, and where they lie in the method's own space.

    Attributes:
        features: what left the image encoder.
        embedding: ``(B, D)``, one an image; what is compared with reports or other views.
        patches: ``(B, P, D)``, one a place, in reading order.
        grid: ``(h, w)`` with ``h * w == P``.
    """

    features: ImageFeatures
    embedding: Tensor
    patches: Tensor
    grid: tuple[int, int]


@dataclass
class TextEncoding(Movable):
    """What a method makes of reports: how they leave the encoder, and where they lie in the method's own space.

    Attributes:
        features: what left the text encoder.
        embedding: ``(B, D)``, one a report.
        sentences: ``(N, D)``, one a sentence.
    """

    features: TextFeatures
    embedding: Tensor
    sentences: Tensor
