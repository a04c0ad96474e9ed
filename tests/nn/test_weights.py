"""Files of other programs: their tensors come out as they are, their code does not run, and what is wrong is said."""

import argparse
import collections
import importlib
import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lingula.nn.weights import CODE, misfit, read_weights
from lingula.registry import UserError


class Config(dict):
    """As a library's configuration is: a dict with attributes and a state of its own."""

    def __init__(self, **values):
        super().__init__(values)
        self.flags = {"readonly": True}

    def __setstate__(self, state):
        raise AssertionError("code of the file's own has run")


class Steps(list):
    pass


class Malicious:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


class Evaluated(Malicious):
    def __reduce__(self):
        return eval, (f"open({str(self.canary)!r}, 'w').close()",)


def tensors():
    generator = torch.Generator().manual_seed(0)
    weights = {f"layer{i}.weight": torch.randn(3, 4, generator=generator) for i in range(3)}
    weights["layer0.weight"] = torch.nn.Parameter(weights["layer0.weight"])
    weights["half"] = torch.randn(5, generator=generator).half()
    weights["count"] = torch.tensor(7)
    weights["turned"] = torch.arange(12.0).view(3, 4).T
    return weights


def everything_else():
    return {
        "hyper_parameters": Config(width=3, more=Config(depth=2)),
        "arguments": argparse.Namespace(folder=Path("/somewhere"), best=np.float64(0.5), table=np.arange(3)),
        "steps": Steps([1, 2, {"a": torch.zeros(2)}]),
        "counted": collections.Counter("aab"),
        "lists": collections.defaultdict(list, {"a": [1]}),
        "kind": torch.float16,
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("more", [False, True], ids=["bare", "with other objects"])
def test_tensors_come_out_as_they_are(tmp_path, legacy, protocol, wrapper, more):
    saved = tensors() if wrapper is None else {wrapper: collections.OrderedDict(tensors())}
    if more:
        saved.update(everything_else())
    kinds = {"_use_new_zipfile_serialization": not legacy, "pickle_protocol": protocol}
    torch.save(saved, tmp_path / "weights.ckpt", **kinds)
    found = read_weights(tmp_path / "weights.ckpt")
    assert found.keys() == tensors().keys()
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in tensors().items())


def test_safetensors_under_any_name_and_prefixes_of_wrappers(tmp_path):
    weights = {f"module.{key}": value.detach().contiguous() for key, value in tensors().items()}
    save_file(weights, tmp_path / "weights.pth")
    assert read_weights(tmp_path / "weights.pth").keys() == tensors().keys()
    torch.save({f"_orig_mod.{key}": value for key, value in weights.items()}, tmp_path / "weights.pth")
    assert read_weights(tmp_path / "weights.pth").keys() == tensors().keys()


@pytest.mark.parametrize("kind", [Malicious, Evaluated])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_no_code_of_the_file_runs(tmp_path, kind, legacy):
    canary, path = tmp_path / "canary", tmp_path / "weights.ckpt"
    torch.save({"state_dict": tensors(), "more": [kind(canary)]}, path, _use_new_zipfile_serialization=not legacy)
    assert read_weights(path).keys() == tensors().keys()
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()  # it would have run


@pytest.mark.parametrize("function", CODE)
@pytest.mark.parametrize("state", [(None, {"__defaults__": ({"neg": True},)}), {"neg": True}])
def test_a_file_changes_nothing_of_what_it_may_call(tmp_path, function, state):
    """pickle's BUILD sets attributes of the object before it: those of a function would stay for all who call it."""
    torch.save({"state_dict": {"a": torch.ones(3)}, "more": Config()}, tmp_path / "sound.pt")
    build = f"c{function[0]}\n{function[1]}\n".encode() + pickle.dumps(state, 2)[2:-1] + b"b0"
    with zipfile.ZipFile(tmp_path / "sound.pt") as sound, zipfile.ZipFile(tmp_path / "weights.pt", "w") as file:
        for name in sound.namelist():
            data = sound.read(name)
            file.writestr(name, data[:2] + build + data[2:] if name.endswith("data.pkl") else data)
    before = {name: dict(vars(getattr(importlib.import_module(module), name))) for module, name in CODE}
    assert torch.equal(read_weights(tmp_path / "weights.pt")["a"], torch.ones(3))
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)
    assert {name: dict(vars(getattr(importlib.import_module(module), name))) for module, name in CODE} == before
    torch.save({"a": torch.ones(3)}, tmp_path / "clean.pt")
    assert torch.equal(torch.load(tmp_path / "clean.pt", weights_only=True)["a"], torch.ones(3))


def test_all_that_a_file_may_call():
    assert set(CODE) == {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
    }


def torchscript(path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


def tar(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


def cut(path):
    torch.save(tensors(), path)
    path.write_bytes(path.read_bytes()[:700])


def cut_safetensors(path):
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda p: p.write_text("<!DOCTYPE html>\n<html><body>Sign in"),
            r"no weights file: it begins with '<!DOCTYPE h",
        ),
        (lambda p: p.write_text("no weights"), "no weights file: it begins with 'no weights'"),
        (lambda p: p.write_bytes(b""), "no weights file: it is empty"),
        (
            lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"),
            'Git LFS pointer; .*"git lfs pull"',
        ),
        (lambda p: p.write_bytes(b"\x80\x04 broken"), "is damaged, or no weights file of PyTorch"),
        (lambda p: p.write_bytes(pickle.dumps({"a": np.zeros(3)})), "is damaged, or no weights file of PyTorch"),
        (lambda p: np.savez(p.open("wb"), a=np.zeros(3)), "is damaged, or no weights file of PyTorch"),
        (cut, "is damaged, or no weights file of PyTorch"),
        (cut_safetensors, "the weights file .* is damaged"),
        (torchscript, "TorchScript archive; save the state_dict"),
        (tar, "no weights file: it begins with"),
        (lambda p: torch.save(torch.nn.Linear(2, 2), p), "no tensors by name: save the state_dict"),
        (lambda p: torch.save([torch.zeros(2)], p), "no tensors by name"),
        (lambda p: torch.save({"epoch": 3}, p), "no tensors by name"),
        (lambda p: torch.save({"a": torch.tensor([1.0, torch.nan]), "b": torch.ones(1)}, p), "NaN .* 1 tensors.* 'a'"),
    ],
)
def test_what_is_no_weights_file_is_said(tmp_path, write, message):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    assert "weights_only" not in said
    assert len(said) < 400


def keys(prefix, count):
    return [f"{prefix}{i}.weight" for i in range(count)]


@pytest.mark.parametrize(
    ("missing", "unknown", "message"),
    [
        (keys("", 3), keys("a.b.", 3), "3 of its 9 tensors are missing.* 3 under 'a.b.', such as 'a.b.0.weight', for"),
        (keys("", 3), keys("a.b.", 3), "cut the prefix 'a.b.' off$"),
        (keys("", 3), keys("a.b.", 3) + keys("c.d.", 9), "and 9 under 'c.d.', .* off, and leave out the rest$"),
        (keys("", 3), keys("a.b.", 3) + keys("a.c.d.", 9) + keys("a.e.", 1), "9 under 'a.c.', and 'a.e.0.weight', for"),
        (
            keys("", 3),
            keys("a.b.", 1) + keys("c.", 3),
            "the file has 3 under 'c.', .* and 'a.b.0.weight'.*prefix 'c.' ",
        ),
        (keys("", 9), keys("a.", 2), "9 of its 9 tensors are missing, such as '0.weight'; .*there is no place$"),
        ([], ["head"], "^the file has 'head', for which there is no place$"),
        ([], [f"{name}.x.y" for name in "abcde"], "^the file has 'a.x.y', 'b.x.y', 'c.x.y', and 2 more, for"),
        (keys("", 1), [], "^1 of its 9 tensors is missing, such as '0.weight'$"),
    ],
)
def test_a_misfit_names_counts_and_prefixes(missing, unknown, message):
    assert re.search(message, misfit(missing, unknown, [], 9))


def test_a_misfit_names_shapes():
    reshaped = [("a", (2, 3), (3, 2)), ("b", (1,), (2,))]
    assert misfit([], [], reshaped, 9) == "'a' is of shape (2, 3) in the file, not (3, 2), and 1 more differ so"
