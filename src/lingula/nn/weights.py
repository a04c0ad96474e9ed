"""Weights files of other programs: read without running their code; and, in one line, why some do not fit."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lingula.registry import UserError

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # where files keep their weights, in timm's order


class Inert:
    """Stands for an object of any other class: it runs nothing and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return self

    def __setitem__(self, key: Any, value: Any) -> None: ...

    __setstate__ = append = extend = add = __call__


def _only_called(function: Callable[..., Any]) -> type[Inert]:
    """A class whose call is that of a function. A pickle may set attributes of what it is handed, and would change the
    function itself, for everyone who calls it later; of this class nothing can be set."""

    class Called(Inert):
        def __new__(cls, *arguments: Any) -> Any:
            return function(*arguments)

    return Called


CODE: dict[tuple[str, str], type[Inert]] = {  # all that a pickle may call; torch itself adds the kinds of storage
    ("collections", "OrderedDict"): _only_called(OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2"): _only_called(torch._utils._rebuild_tensor_v2),
    ("torch._utils", "_rebuild_parameter"): _only_called(torch._utils._rebuild_parameter),
}


class Unpickler(pickle.Unpickler):
    """Makes tensors and plain containers; every class or function not in :data:`CODE` becomes :class:`Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        return CODE.get((module, name), Inert)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in safetensors or PyTorch's formats, whatever else lies in the file.

    Wrappers (:data:`WRAPPERS`) and the prefixes that DDP and torch.compile leave are taken off.

    Raises:
        UserError: for a file that is none, and says what it is instead.
    """
    from safetensors.torch import load_file
    from timm.models import clean_state_dict

    with path.open("rb") as file:
        head = file.read(64)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        try:
            saved: Any = load_file(path)
        except Exception as err:
            raise UserError(f"the weights file {path} is damaged: {' '.join(str(err).split())[:200]}") from err
    elif head.startswith((b"PK\x03\x04", b"\x80")):
        saved = _torch_file(path)
    else:
        begins = head[:24].decode("latin-1").strip()
        why = f"it begins with {begins!r}" if head else "it is empty"
        if begins.startswith("version https://git-lfs"):
            why = 'it is a Git LFS pointer; get the file itself with "git lfs pull"'
        raise UserError(f"{path} is no weights file: {why}")
    wrapper = next((key for key in WRAPPERS if isinstance(saved, dict) and isinstance(saved.get(key), dict)), None)
    state = saved if wrapper is None else saved[wrapper]
    tensors = {}
    if isinstance(state, dict):
        tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: save the state_dict() of its model with torch.save")
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if broken:
        raise UserError(f"the weights in {path} are NaN or infinite in {len(broken)} tensors, such as '{broken[0]}'")
    cleaned: dict[str, Tensor] = clean_state_dict(tensors)
    return cleaned


def _torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote. A file of tensors alone is read as such; TorchScript and tar archives, which can run
    code, are refused there, before the second way is tried."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what is refused or read in the second way
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:  # it holds other objects too, such as settings: they come out inert
                reader = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=_load)
                # torch takes an unpickler of ours only with weights_only=False; it may call CODE all the same
                return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except Exception as err:
        if "TorchScript" in str(err):
            raise UserError(f"{path} is a TorchScript archive; save the state_dict() of its model instead") from err
        raise UserError(f"{path} is damaged, or no weights file of PyTorch ({type(err).__name__})") from err


def _load(file: Any, **options: Any) -> Any:
    return Unpickler(file, **options).load()


def misfit(
    missing: Sequence[str],
    unknown: Sequence[str],
    reshaped: Sequence[tuple[str, Any, Any]],
    total: int,
) -> str:
    """Why a file's weights do not fit, in one line: counts, examples, prefixes, and the prefix to cut off.

    Args:
        missing: tensors of the model that the file lacks.
        unknown: tensors of the file that the model has no place for.
        reshaped: name, shape in the file and shape in the model of those that differ in it.
        total: tensors of the model.
    Example:
        >>> misfit(["conv1.weight"], ["a.b.conv1.weight", "a.c.bias"], [], 1)
        "1 of its 1 tensors is missing, such as 'conv1.weight'; the file has 1 under 'a.b.', such as \
'a.b.conv1.weight', and 'a.c.bias', for which there is no place; cut the prefix 'a.b.' off, and leave out the rest"
    """
    said = []
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        said.append(f"{len(missing)} of its {total} tensors {verb} missing, such as '{min(missing, key=_place)}'")
    if reshaped:
        name, theirs, ours = reshaped[0]
        more = f", and {len(reshaped) - 1} more differ so" if len(reshaped) > 1 else ""
        said.append(f"'{name}' is of shape {tuple(theirs)} in the file, not {tuple(ours)}{more}")
    prefix = _common_prefix(set(missing), unknown)
    if unknown:
        under = [key for key in unknown if prefix and key.startswith(prefix)]
        groups = [(prefix, len(under))] if under else []
        groups += _groups([key for key in unknown if not (prefix and key.startswith(prefix))])
        first = next(key for key in unknown if key.startswith(groups[0][0]))
        named = [f"{count} under '{start}'" if start.endswith(".") else f"'{start}'" for start, count in groups[:3]]
        if groups[0][0] != first:
            named[0] += f", such as '{first}'"
        if len(groups) > 3:
            named.append(f"{sum(count for _, count in groups[3:])} more")
        listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])}, and {named[-1]}"
        said.append(f"the file has {listed}, for which there is no place")
    if prefix:
        rest = ", and leave out the rest" if len(unknown) > len(under) else ""
        said.append(f"cut the prefix '{prefix}' off{rest}")
    return "; ".join(said)


def _place(key: str) -> int:
    return key.count(".")


def _common_prefix(missing: set[str], unknown: Sequence[str]) -> str:
    """The prefix under which the file has at least half of what is missing; empty where there is none."""
    counts: Counter[str] = Counter()
    for key in unknown:
        parts = key.split(".")
        counts.update(".".join(parts[:cut]) + "." for cut in range(1, len(parts)) if ".".join(parts[cut:]) in missing)
    prefix, count = counts.most_common(1)[0] if counts else ("", 0)
    return prefix if 2 * count >= len(missing) else ""


def _groups(keys: Sequence[str]) -> list[tuple[str, int]]:
    """Keys counted by the first two parts of their names, the most frequent first; one alone by its whole name."""
    start = {key: ".".join(key.split(".")[:2]) + "." for key in keys}
    counts = Counter(start.values())
    return Counter(start[key] if counts[start[key]] > 1 else key for key in keys).most_common()
