"""The Hugging Face hub: reached quickly or not at all, and never a source of code."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lingula.registry import UserError

SECONDS = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 1.5)  # the hub's own option, for slow lines


def reachable() -> bool:
    """Whether the hub answers. Its own client retries for 20 seconds a file; this asks once, within ``SECONDS``."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT, int(time.monotonic() // 60))


@functools.lru_cache(maxsize=1)
def _answers(endpoint: str, minute: int) -> bool:
    """One question a minute, in a thread: resolving a name has no time limit of its own."""
    from huggingface_hub import get_session

    client, answered = get_session(), threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            client.head(endpoint, timeout=SECONDS)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return answered.is_set()


def unreached() -> str:
    """Why the hub is not asked, in words."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the Hugging Face hub is not asked: HF_HUB_OFFLINE is set"
    return f"the Hugging Face hub cannot be reached in {SECONDS:g} s (HF_HUB_ETAG_TIMEOUT=10 waits longer)"


@contextlib.contextmanager
def cache_if_unreachable() -> Iterator[None]:
    """For libraries that cannot be told so: where the hub does not answer, only its cache is read."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch(auto: Any, name: str | Path, **options: Any) -> Any:
    """``auto.from_pretrained`` by name or local folder; Python code that lies beside the weights is never run.

    Args:
        auto: ``AutoConfig``, ``AutoModel`` or ``AutoTokenizer`` of transformers.
        name: a name on the hub, or a local folder.
        options: more arguments of ``from_pretrained``.
    Raises:
        UserError: for a model or tokenizer that wants code of its own to run.
        Exception: what transformers raises where it cannot be had or read.
    """
    local = Path(name).is_dir() or not reachable()
    try:
        found = auto.from_pretrained(str(name), trust_remote_code=False, local_files_only=local, **options)
    except Exception as err:
        if "trust_remote_code" in str(err):
            raise UserError(_code(name)) from err
        raise
    about = found[0] if isinstance(found, tuple) else found
    refuse_code(name, getattr(about, "config", about))
    return found


def check_obtainable(name: str) -> None:
    """Refuse a text encoder that is neither a local folder nor in the cache, where the hub does not answer: at once,
    before transformers is imported.

    Raises:
        UserError: as said.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir() or reachable():
        return
    try:
        there = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # a path, and no name
        there = False
    if not there:
        raise UserError(no_model("text encoder", name))


def refuse_code(name: str | Path, config: Any) -> None:
    """Refuse a configuration or tokenizer that names Python code, or a compiled kernel on the hub, to be run with it.

    Raises:
        UserError: as said.
    """
    named = getattr(config, "auto_map", None) or getattr(config, "init_kwargs", {}).get("auto_map")
    if named or "/" in str(getattr(config, "_attn_implementation", "")):
        raise UserError(_code(name))


def _code(name: str | Path) -> str:
    return (
        f"'{name}' comes with code of its own, which lingula never runs; choose a model and tokenizer that "
        "transformers itself knows"
    )


def no_model(what: str, name: str | Path, err: Exception | None = None) -> str:
    """What to tell a user whose text encoder or tokenizer cannot be had, in one line."""
    if Path(name).is_dir():
        why = " ".join(str(err).split()) or type(err).__name__
        if "weights_only" in why:  # torch's advice to read it all the same
            why = "its pytorch_model.bin holds other objects than tensors; save them as model.safetensors"
        return f"cannot load the {what} in the folder {name}: {why[:300].rstrip('.')}"
    why = "the Hugging Face hub does not give it" if reachable() else unreached()
    return (
        f"cannot load the {what} '{name}': no such local folder, and {why}; go online once, name a local folder with "
        "--text_encoder FOLDER (and --image_weights FILE), or start from scratch with --recipe scratch or "
        "--text_encoder small_bert"
    )
