"""A method on its towers, by name or from the folder of a run. Floor 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lingula.data.tokens import load_tokenizer
from lingula.methods import METHODS
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.text_encoders import TextEncoder, text_config
from lingula.registry import UserError, check_options
from lingula.runs.folder import read_run

TOWERS = ("image_encoder", "text_encoder", "image_size")  # what a method is built on, and no option of it


def build_method(
    name: str,
    options: dict[str, Any],
    image_encoder: str,
    text_config: Any,
    image_size: int,
    pretrained_image: bool | Path = False,
    text_weights: str | None = None,
    normalised: bool = False,
) -> nn.Module:
    """A method on its towers, with fresh or published weights.

    Args:
        name: of the method.
        options: of the method.
        image_encoder: its name.
        text_config: of its text encoder; not used by a method of films alone.
        image_size: H = W in pixels.
        pretrained_image: the image encoder's published weights, or a file of them.
        text_weights: name or folder of the text encoder's.
        normalised: give the image encoder its inputs by the mean and standard deviation of its published weights
            (:class:`lingula.nn.image_encoders.ImageEncoder`).
    Raises:
        UserError: for an unknown method, encoder or option, or a value that the method refuses.
    """
    factory = METHODS[name]
    check_options(f"method '{name}'", factory, options, not_options=TOWERS)
    towers: dict[str, Any] = {"image_encoder": ImageEncoder(image_encoder, image_size, pretrained_image, normalised)}
    if factory.uses_text:
        towers["text_encoder"] = TextEncoder(text_config, text_weights)
    try:
        method: nn.Module = factory(**towers, image_size=image_size, **options)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as err:
        raise UserError(f"method '{name}': {err}") from err
    return method


def method_of(run: Path | str) -> tuple[nn.Module, Any, dict[str, Any]]:
    """The method of a run with *untrained* weights, its tokenizer, and its ``run.json``.

    A method of images alone has no tokenizer: ``None``.

    Raises:
        UserError: if the folder is no run, or its text encoder or tokenizer cannot be read or wants code to run.
    """
    run = Path(run)
    made = read_run(run)
    config = tokenizer = None
    if METHODS[made["method"]].uses_text:
        tokenizer = load_tokenizer(run / "tokenizer")
        config = text_config(str(run / "text_encoder"), len(tokenizer))
    method = build_method(made["method"], made["options"], made["image_encoder"], config, made["image_size"])
    return method, tokenizer, made
