"""What the library may ask of a method, the check that it can be asked, and a base class with the defaults. Floor 1."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from lingula.batch import Batch, ImageEncoding, ImageFeatures, Reports, TextEncoding, TextFeatures
from lingula.registry import UserError, nearest


class ImageTower(Protocol):
    """An image encoder; :class:`lingula.nn.image_encoders.ImageEncoder` is one.

    It is an ``nn.Module`` that takes ``(B, 1, H, W)`` images in [-1, 1]. ``checkpoint_activations()``, which stores
    only the inputs of its blocks, is needed for the option of that name alone; the U-Net of segmentation and the head
    of detection read the ``maps`` of its features.

    Attributes:
        width: C of ``pooled`` and ``patches``.
        grid: ``(h, w)`` of the patches at the image size of the training.
        input_normalisation: mean and standard deviation of its inputs, in words.
    """

    width: int
    grid: tuple[int, int]
    input_normalisation: str

    def __call__(self, images: Tensor) -> ImageFeatures: ...


class TextTower(Protocol):
    """A text encoder; :class:`lingula.nn.text_encoders.TextEncoder` is one. An ``nn.Module``.

    Attributes:
        width: C of ``tokens`` and ``sentences``.
        max_tokens: the longest report that it can read.
    """

    width: int
    max_tokens: int

    def __call__(self, reports: Reports) -> TextFeatures: ...


class Method(Protocol):
    """A method: an ``nn.Module`` with what stands here. :class:`MethodBase` has the defaults.

    **The constructor** is given what it names of ``image_encoder`` and ``text_encoder`` (the towers of the recipe),
    ``image_size`` (H = W in pixels) and ``vocabulary`` (number of tokens of the tokenizer); all other parameters are
    the method's options, and have defaults. A method with an image or text encoder of its own names none of ours and
    makes its own in the constructor.

    **Optional members**, needed only by what asks for them: all below ``warnings``. A method whose ``uses_text`` is
    true must have ``encode_text`` and ``text_encoder``; one that learns from images alone has none of them.

    Attributes:
        recipes: recipes by name: ``paper``, and ``scratch`` for small encoders without pre-trained weights. Each has
            ``stages``, and each stage ``weights``: the loss terms and their weights.
        views: number of views of an image that ``forward`` reads.
        uses_text: whether ``forward`` reads reports.
        smallest_batch: least number of images in a batch of one process.
        weights: the weight of each loss term in the current stage; set at its beginning.
        image_encoder: see :class:`ImageTower`. Registered before all other modules.
        text_encoder: see :class:`TextTower`. Registered after the image encoder.
    """

    recipes: Mapping[str, Any]
    views: int
    uses_text: bool
    smallest_batch: int
    weights: dict[str, float]
    image_encoder: Any  # an nn.Module that is an ImageTower, which Python cannot say
    training: bool

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of a batch: named scalars, multiplied by their weights. Terms of weight 0 are left out."""
        ...

    def encode_image(self, images: Tensor) -> ImageEncoding:
        """``(B, 1, H, W)`` in [-1, 1]."""
        ...

    def after_step(self) -> None:
        """Move what moves without gradient, after each step of the optimiser."""
        ...

    def warnings(self) -> list[str]:
        """What a user must be told at the end of a stage, one line each."""
        ...

    # Optional.

    text_encoder: Any  # an nn.Module that is a TextTower

    def encode_text(self, reports: Reports) -> TextEncoding:
        """The reports of a batch."""
        ...

    def attention_maps(self, images: Tensor, reports: Reports) -> Tensor:
        """``(N, h, w)``: where each of the N sentences looks on the image of its own report."""
        ...

    def score(self, images: ImageEncoding, texts: TextEncoding) -> Tensor:
        """``(B, M)``: how well each of B images and each of M texts go together; higher is better. Where a method has
        none, it is the cosine of their embeddings."""
        ...

    def cross_attention(self, patches: Tensor, sentences: Tensor, reports: Reports) -> Any:
        """``image_to_report``, ``(N, D)``: what each sentence finds on its image, of ``(B, P, D)`` patches."""
        ...

    def find_clusters(self, cross_modal: Tensor, keys: Tensor, seed: int) -> Any:
        """Centres, the assignment to them, and whether there are any, of ``(N, D)`` representations."""
        ...

    @classmethod
    def make_tokenizer(cls, sentences: Iterable[str], folder: Path, vocabulary: int) -> None:
        """Save a tokenizer to a folder that ``AutoTokenizer`` loads; without this, the recipe's."""
        ...

    def report_decoder(self, vocabulary: int, max_tokens: int, begin: int, end: int, pad: int) -> nn.Module:
        """An untrained decoder of reports, in place of :class:`lingula.nn.report_decoder.ReportDecoder`, with its
        ``forward`` and ``generate``; ``begin``, ``end`` and ``pad`` are ids of tokens."""
        ...

    # Of every nn.Module.

    def __call__(self, batch: Batch) -> dict[str, Tensor]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def to(self, device: torch.device | str) -> Any: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def buffers(self) -> Iterator[Tensor]: ...


class MethodBase(nn.Module):
    """The defaults of :class:`Method`. A method that derives from it adds ``recipes``, ``forward`` and
    ``encode_image``, and ``encode_text`` where it reads reports.

    Args:
        weights: loss terms and their weights, until a stage sets its own.
        image_encoder: see :class:`ImageTower`.
        text_encoder: see :class:`TextTower`; ``None`` for a method of images alone.
    """

    recipes: ClassVar[Mapping[str, Any]]
    views: ClassVar[int] = 1
    uses_text: ClassVar[bool] = False
    smallest_batch: ClassVar[int] = 1

    def __init__(
        self, weights: Mapping[str, float], image_encoder: nn.Module, text_encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.image_encoder: Any = image_encoder
        if text_encoder is not None:
            self.text_encoder: Any = text_encoder

    @property
    def wanted(self) -> set[str]:
        """The loss terms whose weight is not 0; the others need not be computed."""
        return {name for name, weight in self.weights.items() if weight}

    def weigh(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each term times its weight; terms of weight 0 are left out.

        Args:
            terms: scalars by name, not yet weighted.
        Raises:
            UserError: for a weight of a term that is not among them.
        """
        check_terms(self.wanted, terms)
        return {name: self.weights[name] * term for name, term in terms.items() if self.weights.get(name)}

    def after_step(self) -> None:
        """Nothing moves without gradient."""

    def warnings(self) -> list[str]:
        """None."""
        return []


def check_terms(wanted: Iterable[str], terms: Iterable[str]) -> None:
    """Refuse weights of loss terms that a method does not compute.

    Args:
        wanted: names of the terms whose weight is not 0.
        terms: names of those that ``forward`` gave.
    Raises:
        UserError: naming the first that is missing.
    """
    given = list(terms)
    for name in sorted(wanted):
        if name not in given:
            hint = nearest(name, given) or f"; it computes {', '.join(given) or 'none'}"
            raise UserError(f"the method computes no loss term '{name}', which has a weight{hint}")


# The check -----------------------------------------------------------------------------------------------------------


def check_method(method: object) -> None:
    """Refuse what is no :class:`Method`, naming everything that is missing or of the wrong kind.

    Args:
        method: a method, or its class, of which only what stands in the class is looked at.
    Raises:
        UserError: listing all of it.
    """
    faults = list(_faults_of_class(method))
    if not inspect.isclass(method):
        faults += _faults_of_towers(method)
    if faults:
        kind = method if inspect.isclass(method) else type(method)
        raise UserError(f"{kind.__name__} is no method: {'; '.join(faults)}")


_CALLED = {  # member: the names of what it is called with
    "forward": ("batch",),
    "encode_image": ("images",),
    "after_step": (),
    "warnings": (),
}
_OF_TEXT = {"encode_text": ("reports",)}
_OPTIONAL = {
    "attention_maps": ("images", "reports"),
    "score": ("images", "texts"),
    "cross_attention": ("patches", "sentences", "reports"),
    "find_clusters": ("cross_modal", "keys", "seed"),
    "make_tokenizer": ("sentences", "folder", "vocabulary"),
    "report_decoder": ("vocabulary", "max_tokens", "begin", "end", "pad"),
}


def _faults_of_class(method: object) -> Iterator[str]:
    kind = method if inspect.isclass(method) else type(method)
    if not issubclass(kind, nn.Module):
        yield "it is no nn.Module"
    yield from _faults_of_recipes(getattr(method, "recipes", None))
    for name, of, what in (
        ("views", int, "a whole number from 1"),
        ("uses_text", bool, "true or false"),
        ("smallest_batch", int, "a whole number from 1"),
    ):
        value = getattr(method, name, None)
        if value is None:
            yield f"'{name}' is missing"
        elif type(value) is not of or (of is int and value < 1):
            yield f"'{name}' must be {what}, got {value!r}"
    needed = _CALLED | (_OF_TEXT if getattr(method, "uses_text", False) is True else {})
    for name, arguments in {**_OPTIONAL, **needed}.items():
        member = inspect.getattr_static(kind, name, None)
        unwritten = name == "forward" and member is inspect.getattr_static(nn.Module, "forward")
        if unwritten or not hasattr(method, name):
            if name in needed:
                yield f"'{name}({', '.join(arguments)})' is missing"
            continue
        if isinstance(member, nn.Module) or (member is None and isinstance(getattr(method, name), nn.Module)):
            continue  # a submodule, such as a cross-attention; how it is called is said by its own forward
        bound = isinstance(member, classmethod | staticmethod)
        function = getattr(kind, name, None) if bound else member
        if not callable(function) or not _takes(function, len(arguments) + (not bound)):
            yield f"'{name}' must be a method that is called as {name}({', '.join(arguments)})"


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _faults_of_recipes(recipes: object) -> Iterator[str]:
    if not isinstance(recipes, Mapping) or not recipes:
        yield "'recipes' must name one recipe or more" if recipes is not None else "'recipes' is missing"
        return
    for name, recipe in recipes.items():
        stages = getattr(recipe, "stages", None)
        if not isinstance(stages, Sequence) or not stages:
            yield f"recipe '{name}' has no stages"
        elif not all(isinstance(getattr(stage, "weights", None), Mapping) for stage in stages):
            yield f"recipe '{name}' has a stage without weights of loss terms"


def _faults_of_towers(method: object) -> Iterator[str]:
    weights = getattr(method, "weights", None)
    if not isinstance(weights, dict) or not all(isinstance(value, int | float) for value in weights.values()):
        yield "'weights' must be a dict of numbers, by the names of the loss terms"
    parts: dict[str, dict[str, type]] = {"image_encoder": {"width": int, "grid": tuple, "input_normalisation": str}}
    if getattr(method, "uses_text", False) is True:
        parts["text_encoder"] = {"width": int, "max_tokens": int}
    for tower, attributes in parts.items():
        module = getattr(method, tower, None)
        if not isinstance(module, nn.Module):
            yield f"'{tower}' must be an nn.Module, got {type(module).__name__}"
            continue
        for name, of in attributes.items():
            if not isinstance(getattr(module, name, None), of):
                yield f"'{tower}.{name}' must be a {of.__name__}"
