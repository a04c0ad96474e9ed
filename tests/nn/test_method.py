"""The contract of a method: what its check refuses, and the defaults of its base class."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from lingula.nn.method import MethodBase, check_method, check_terms
from lingula.registry import UserError

RECIPES = {"scratch": SimpleNamespace(stages=(SimpleNamespace(weights={"a": 1.0}),))}


class Tower(nn.Module):
    width, grid, input_normalisation, max_tokens = 4, (2, 2), "mean 0.5, std 0.5", 16


class Small(MethodBase):
    recipes = RECIPES

    def __init__(self):
        super().__init__({"a": 1.0}, Tower())

    def forward(self, batch):
        return self.weigh({"a": torch.ones(())})

    def encode_image(self, images): ...


class Empty:
    """Nothing of what is asked."""


class Wrong(nn.Module):
    """All of it, and nothing as it should be."""

    recipes: ClassVar = {"scratch": SimpleNamespace(stages=()), "paper": SimpleNamespace(stages=(1,))}
    views, uses_text, smallest_batch = 0, True, "2"
    weights: ClassVar = {"a": "heavy"}
    encode_image = 3

    def forward(self, batch, more): ...

    def encode_text(self): ...

    def after_step(self): ...

    def warnings(self): ...

    def attention_maps(self, images): ...

    @classmethod
    def make_tokenizer(cls, sentences): ...


def faults(method):
    with pytest.raises(UserError) as refused:
        check_method(method)
    kind, _, listed = str(refused.value).partition(" is no method: ")
    return kind, set(listed.split("; "))


def test_what_obeys_passes():
    check_method(Small)
    check_method(Small())


def test_everything_that_is_missing_is_named_at_once():
    assert faults(Empty()) == (
        "Empty",
        {
            "it is no nn.Module",
            "'recipes' is missing",
            "'views' is missing",
            "'uses_text' is missing",
            "'smallest_batch' is missing",
            "'forward(batch)' is missing",
            "'encode_image(images)' is missing",
            "'after_step()' is missing",
            "'warnings()' is missing",
            "'weights' must be a dict of numbers, by the names of the loss terms",
            "'image_encoder' must be an nn.Module, got NoneType",
        },
    )
    assert "'forward(batch)' is missing" in faults(nn.Identity.__mro__[1])[1]  # that of nn.Module only raises


def test_everything_of_the_wrong_kind_is_named_at_once():
    assert faults(Wrong()) == (
        "Wrong",
        {
            "recipe 'scratch' has no stages",
            "recipe 'paper' has a stage without weights of loss terms",
            "'views' must be a whole number from 1, got 0",
            "'smallest_batch' must be a whole number from 1, got '2'",
            "'forward' must be a method that is called as forward(batch)",
            "'encode_image' must be a method that is called as encode_image(images)",
            "'encode_text' must be a method that is called as encode_text(reports)",
            "'attention_maps' must be a method that is called as attention_maps(images, reports)",
            "'make_tokenizer' must be a method that is called as make_tokenizer(sentences, folder, vocabulary)",
            "'weights' must be a dict of numbers, by the names of the loss terms",
            "'image_encoder' must be an nn.Module, got NoneType",
            "'text_encoder' must be an nn.Module, got NoneType",
        },
    )


def test_towers_say_what_is_read_of_them():
    method = Small()
    method.image_encoder = nn.Linear(2, 2)
    assert faults(method)[1] == {f"'image_encoder.{name}' must be a {kind}" for name, kind in
                                 (("width", "int"), ("grid", "tuple"), ("input_normalisation", "str"))}  # fmt: skip


def test_the_base_weighs_terms_and_leaves_out_what_weighs_nothing():
    method = Small()
    method.weights = {"a": 2.0, "b": 0.0, "c": 0.5}
    terms = {name: torch.tensor(value) for name, value in (("a", 3.0), ("b", 5.0), ("c", 7.0), ("unasked", 11.0))}
    assert {name: term.item() for name, term in method.weigh(terms).items()} == {"a": 6.0, "c": 3.5}
    assert method.wanted == {"a", "c"}
    assert method.warnings() == []


def test_a_weight_of_no_term_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="no loss term 'sentense', which has a weight; did you mean 'sentence'"):
        check_terms({"sentense"}, {"sentence": 1})
    with pytest.raises(UserError, match="it computes none"):
        check_terms({"sentence"}, {})
