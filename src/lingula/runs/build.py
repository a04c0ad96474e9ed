"""A method on its towers, by name or from the folder of a run. Floor 4."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from lingula.data.tokens import load_tokenizer
from lingula.methods import METHODS
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.method import Method, check_method
from lingula.nn.text_encoders import TextEncoder, text_config
from lingula.registry import UserError, check_options
from lingula.runs.folder import read_run

# What a method is built on, as far as its constructor names it, and no option of it.
TOWERS = ("image_encoder", "text_encoder", "image_size", "vocabulary")


def takes(method: str, part: str) -> bool:
    """Whether a method's constructor names one of :data:`TOWERS`; a method that does not has its own, or needs none."""
    return part in inspect.signature(METHODS[method]).parameters


def build_method(
    name: str,
    options: dict[str, Any],
    image_encoder: str,
    text_config: Any,
    image_size: int,
    pretrained_image: bool | Path = False,
    text_weights: str | None = None,
    normalised: bool = False,
    vocabulary: int = 0,
) -> Method:
    """A method on its towers, with fresh or published weights.

    Args:
        name: of the method.
        options: of the method.
        image_encoder: its name; not used by a method with an image encoder of its own.
        text_config: of its text encoder; not used by a method that has its own, or reads no text.
        image_size: H = W in pixels.
        pretrained_image: the image encoder's published weights, or a file of them.
        text_weights: name or folder of the text encoder's.
        normalised: give the image encoder its inputs by the mean and standard deviation of its published weights
            (:class:`lingula.nn.image_encoders.ImageEncoder`).
        vocabulary: number of tokens of the tokenizer, for a method with a text encoder of its own.
    Raises:
        UserError: for an unknown method, encoder or option, a value that the method refuses, or a class that is no
            method (:func:`lingula.nn.method.check_method`).
    """
    factory = METHODS[name]
    check_options(f"method '{name}'", factory, options, not_options=TOWERS)
    towers: dict[str, Any] = {"image_size": image_size, "vocabulary": vocabulary}
    if takes(name, "image_encoder"):
        towers["image_encoder"] = ImageEncoder(image_encoder, image_size, pretrained_image, normalised)
    elif pretrained_image or normalised:
        raise UserError(f"method '{name}' has an image encoder of its own, for which there are no published weights")
    if takes(name, "text_encoder"):
        towers["text_encoder"] = TextEncoder(text_config, text_weights)
    try:
        method: Method = factory(**{part: made for part, made in towers.items() if takes(name, part)}, **options)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as err:
        raise UserError(f"method '{name}': {err}") from err
    check_method(method)
    return method


def again(made: dict[str, Any], text_config: Any, tokenizer: Any, **weights: Any) -> Method:
    """The method of a run, built anew: with random weights, or what else is asked of :func:`build_method`.

    Args:
        made: its ``run.json``.
        text_config: of its text encoder; ``None`` where that is the method's own, or there is none.
        tokenizer: the run's; ``None`` for a method of images alone.
        weights: ``pretrained_image``, ``normalised``.
    """
    vocabulary = 0 if tokenizer is None else len(tokenizer)
    parts = (made["method"], made["options"], made["image_encoder"], text_config, made["image_size"])
    return build_method(*parts, vocabulary=vocabulary, **weights)


def method_of(run: Path | str) -> tuple[Method, Any, dict[str, Any]]:
    """The method of a run with *untrained* weights, its tokenizer, and its ``run.json``.

    A method of images alone has no tokenizer: ``None``.

    Raises:
        UserError: if the folder is no run, or its text encoder or tokenizer cannot be read or wants code to run.
    """
    run = Path(run)
    made = read_run(run)
    config: Any = None
    tokenizer: Any = None
    if METHODS[made["method"]].uses_text:
        tokenizer = load_tokenizer(run / "tokenizer")
    if takes(made["method"], "text_encoder"):
        config = text_config(str(run / "text_encoder"), len(tokenizer))
    return again(made, config, tokenizer), tokenizer, made
