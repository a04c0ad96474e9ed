"""A trained model: its encoders, how images and reports are prepared for it, and what it gives for them. Floor 4."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lingula.batch import Reports
from lingula.data.collate import collate_reports
from lingula.data.image import Geometry, letterbox, read_square
from lingula.data.sentences import report_sentences
from lingula.data.tokens import tokenise
from lingula.data.transforms import centre_corners, crop, to_unit_range
from lingula.nn.image_encoders import has_batch_norm
from lingula.nn.method import Method
from lingula.registry import UserError, trust
from lingula.runs.build import again, method_of, takes
from lingula.training.checkpoint import load_weights

Film: TypeAlias = str | Path | np.ndarray


@dataclass
class EncodedImages:
    """``embedding (B, D)``, ``patches (B, P, D)``, ``features (B, C)`` mean-pooled (what a probe reads), ``grid``."""

    embedding: Tensor
    patches: Tensor
    features: Tensor
    grid: tuple[int, int]


@dataclass
class EncodedReports:
    """``embedding (B, D)``; for each report its ``sentences (S, D)`` and their ``texts``."""

    embedding: Tensor
    sentences: list[Tensor]
    texts: list[list[str]]


@dataclass
class Attention:
    """Where each sentence of a report looks.

    Attributes:
        texts: the S sentences.
        weights: ``(S, P)``, one a patch: attention, or the cosine of sentence and patch, as the method has it.
        grid: ``(h, w)`` of the patches.
        maps: ``(S, H, W)`` the weights on the film's own pixels, bilinear; NaN where the encoder never saw the film.
    """

    texts: list[str]
    weights: Tensor
    grid: tuple[int, int]
    maps: np.ndarray


def load(run: Path | str, device: str | torch.device = "cpu", allow: str | Sequence[str] = ()) -> Model:
    """The trained model of a run, in evaluation mode.

    Args:
        run: the folder that ``lingula pretrain --out`` wrote.
        device: where it shall live.
        allow: a method outside lingula whose code may run, as ``"package:Class"``; needed for a run of such a method.
    Raises:
        UserError: if the folder holds no run, or no checkpoint, or if its method is outside lingula and not allowed.
    """
    trust(allow)
    method, tokenizer, made = method_of(run)
    made = {**made, "checkpoint_sha256": load_weights(Path(run), method)}
    return Model(method.to(device).eval(), tokenizer, made, torch.device(device))


class Model:
    """A method, its tokenizer and how films are prepared for it.

    Attributes:
        method: see :class:`lingula.nn.method.Method`.
        tokenizer: of its text encoder.
        made: ``run.json``, and ``checkpoint_sha256``.
        device: where it lives.
        batch_norm: whose statistics the BatchNorms of the image encoder use, in words.
    """

    def __init__(self, method: Method, tokenizer: Any, made: dict[str, Any], device: torch.device) -> None:
        self.method = method
        self.batch_norm = "its own statistics" if has_batch_norm(method.image_encoder) else "none"
        self.tokenizer = tokenizer
        self.made = made
        self.device = device

    @property
    def name(self) -> str:
        """The method's name; ``random`` or ``imagenet`` where its weights are that."""
        return str(self.made["method"]) if self.is_trained else self.checkpoint.partition("-")[0]

    @property
    def is_trained(self) -> bool:
        """Whether its weights are those of a checkpoint."""
        return not self.checkpoint.startswith(("random-", "imagenet-"))

    @property
    def checkpoint(self) -> str:
        """SHA-256 of the weights; ``random-SEED`` or ``imagenet-ENCODER`` where they are that."""
        return str(self.made["checkpoint_sha256"])

    @property
    def text_config(self) -> Any:
        """The transformers configuration of its text encoder; ``None`` where that is the method's own, or there is
        none."""
        return copy.deepcopy(self.method.text_encoder.config) if takes(self.made["method"], "text_encoder") else None

    @property
    def conditions(self) -> dict[str, str]:
        """How the image encoder is used, for a row of results: ``input_normalisation`` and ``batch_norm``."""
        return {"input_normalisation": self.method.image_encoder.input_normalisation, "batch_norm": self.batch_norm}

    @property
    def image_size(self) -> int:
        """Pixels that the image encoder sees."""
        return int(self.made["image_size"])

    @property
    def resize_to(self) -> int:
        """Pixels to which films come before they are cropped to the image size."""
        return int(self.made["resize_to"])

    @property
    def batch_size(self) -> int:
        """Pairs in a batch of the training."""
        return int(self.made["plan"]["batch_size"])

    @property
    def trained_on(self) -> dict[str, Any]:
        """``name``, ``folder`` and ``fingerprint`` of the corpus of the training; empty if not known."""
        return dict(self.made.get("corpus") or {})

    @torch.inference_mode()
    def encode_image(self, images: Film | Sequence[Film]) -> EncodedImages:
        """Embed films: paths (JPEG, PNG, DICOM) or ``(H, W)`` uint8 arrays, one or several.

        Raises:
            UserError: for a file that cannot be read.
        """
        films = [images] if isinstance(images, str | Path | np.ndarray) else list(images)
        batch = torch.cat([self._prepare(film)[0] for film in films])
        found = self.method.encode_image(batch.to(self.device))
        return EncodedImages(found.embedding, found.patches, found.features.pooled, found.grid)

    @torch.inference_mode()
    def encode_text(self, reports: str | Sequence[str]) -> EncodedReports:
        """Embed reports, one or several; each is split into sentences as in training.

        Raises:
            UserError: for a report without a sentence of two words, or a method of films alone.
        """
        self._can("encode_text", "reads no reports")
        split, tokenised = self._reports([reports] if isinstance(reports, str) else list(reports))
        found = self.method.encode_text(tokenised)
        counts = torch.bincount(tokenised.report_of_sentence, minlength=len(split)).tolist()
        return EncodedReports(found.embedding, list(found.sentences.split(counts)), split)

    @torch.inference_mode()
    def attend(self, image: Film, report: str) -> Attention:
        """Where each sentence of a report looks on a film.

        Raises:
            UserError: as :meth:`encode_image` and :meth:`encode_text`.
        """
        self._can("attention_maps", "reads no reports, and so has no place where a sentence looks")
        film, geometry = self._prepare(image)
        (texts,), tokenised = self._reports([report])
        grids = self.method.attention_maps(film.to(self.device), tokenised).float().cpu()
        room = self.made["resize_to"] - self.made["image_size"]
        maps = on_original(grids, geometry, self.made["image_size"], room // 2)
        return Attention(texts, grids.flatten(1), (grids.shape[1], grids.shape[2]), maps)

    def _can(self, what: str, otherwise: str) -> None:
        if not hasattr(self.method, what):
            raise UserError(f"method '{self.made['method']}' {otherwise}")

    def _prepare(self, film: Film) -> tuple[Tensor, Geometry]:
        size = self.made["resize_to"]
        square, geometry = letterbox(film, size) if isinstance(film, np.ndarray) else read_square(film, size)
        room = self.made["resize_to"] - self.made["image_size"]
        corners = centre_corners(1, room, torch.device("cpu"))
        return to_unit_range(crop(torch.from_numpy(square)[None], corners, self.made["image_size"]))[:, None], geometry

    def _reports(self, reports: list[str]) -> tuple[list[list[str]], Reports]:
        split = [report_sentences(report) for report in reports]
        for report, sentences in zip(reports, split, strict=True):
            if not sentences:
                raise UserError(f"no sentence of two words or more in the report {report!r}")
        tokens = tokenise(split, self.tokenizer, self.method.text_encoder.max_tokens)
        kept = [sentences[:count] for sentences, count in zip(split, tokens.sentences, strict=True)]
        return kept, collate_reports(tokens, np.arange(len(split))).to(self.device)


def on_original(maps: Tensor, geometry: Geometry, image_size: int, offset: int) -> np.ndarray:
    """Maps on the encoder's grid, drawn on the film's own pixels.

    Args:
        maps: ``(S, h, w)`` on the grid.
        geometry: how the film became the prepared square.
        image_size: pixels of the crop that the encoder saw.
        offset: of that crop in the prepared square, pixels.
    Returns:
        ``(S, H, W)`` float32, NaN where the film lies outside the crop.
    """
    seen = torch.nn.functional.interpolate(maps[:, None].float(), (image_size, image_size), mode="bilinear")[:, 0]

    def places(pixels: int, pad: float) -> np.ndarray:
        """Crop pixel under the centre of each original pixel."""
        return np.floor((np.arange(pixels) + 0.5) * geometry.scale + pad - offset).astype(int)

    rows, columns = places(geometry.height, geometry.pad_y), places(geometry.width, geometry.pad_x)
    inside = ((rows >= 0) & (rows < image_size))[:, None] & ((columns >= 0) & (columns < image_size))
    drawn = seen.numpy()[:, rows.clip(0, image_size - 1)[:, None], columns.clip(0, image_size - 1)]
    return np.where(inside, drawn, np.nan).astype(np.float32)


def fresh(model: Model, seed: int) -> Model:
    """The same architecture with random weights: the baseline that every measurement stands beside."""
    return _untrained(model, seed, False, f"random-{seed}")


def imagenet(model: Model, weights: Path | None = None) -> Model:
    """The same architecture with ImageNet's weights in its image encoder, and random ones elsewhere.

    The image encoder gets what its weights were trained on: three channels, normalised by their own mean and standard
    deviation (those of the timm model of its name, also for a file).

    Args:
        model: the architecture.
        weights: a file of them; timm's published ones if not given.
    Raises:
        UserError: where those weights cannot be had, or do not fit, or the image encoder is the method's own.
    """
    return _untrained(model, 0, weights or True, imagenet_name(model, weights), normalised=True)


def imagenet_name(model: Model, weights: Path | None = None) -> str:
    """What tells the weights of :func:`imagenet` from others: ``imagenet-``, and the encoder's name or the file's hash.

    Raises:
        UserError: if there is no such file.
    """
    if weights is None:
        return f"imagenet-{model.made['image_encoder']}"
    if not weights.is_file():
        raise UserError(f"no weights of the image encoder '{model.made['image_encoder']}' at {weights}")
    return f"imagenet-{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}"


def _untrained(model: Model, seed: int, pretrained: bool | Path, checkpoint: str, normalised: bool = False) -> Model:
    torch.manual_seed(seed)
    made = {**model.made, "checkpoint_sha256": checkpoint}
    method = again(made, model.text_config, model.tokenizer, pretrained_image=pretrained, normalised=normalised)
    return Model(method.to(model.device).eval(), model.tokenizer, made, model.device)
