"""A steady step of every method asks the device for nothing: loader, towers, loss, clipping, optimiser and all."""

import dataclasses

import pytest
import torch

from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.methods import METHODS
from lingula.training.devices import fabric_on, seed_device
from lingula.training.loop import fit
from lingula.training.optim import build_optimizer


@pytest.fixture(scope="module")
def steps(tiny, tiny_corpus, tmp_path_factory):
    """``steps(name, device, start, stop)`` takes some of a method's steps on the tiny corpus."""
    corpus = PreparedCorpus.open(tiny_corpus)
    texts = [sentence.lower() for report in corpus.reports for sentence in report]
    tokens = tokenise(corpus.reports, train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 300), 64)
    tokens = dataclasses.replace(tokens, ids=tokens.ids % tiny.vocabulary)  # the tiny towers know no more
    made = {}

    def take(name, device, start, stop):
        if (name, device) not in made:
            recipe = METHODS[name].recipes["scratch"]
            model = tiny.method(name, recipe.options | tiny.smaller.get(name, {}))
            model.weights = dict(recipe.stages[-1].weights)
            loader = Loader(
                corpus,
                corpus.rows("train"),
                tiny.image_size,
                tiny.image_size,
                8,
                tokens if model.uses_text else None,
                training=True,
                device=device,
                views=model.views,
                augmentation=recipe.augmentation,
                sentences=recipe.sentences,
            )
            fabric = fabric_on(torch.device(device))
            optimizer = build_optimizer(model, recipe)
            made[name, device] = fabric, *fabric.setup(model, optimizer), loader
        fabric, model, optimizer, loader = made[name, device]
        fit(fabric, model, optimizer, loader, lambda step: 1e-4, stop, start, clip=1.0, log_every=100)

    return take


@pytest.mark.parametrize("name", METHODS)
def test_no_operator_of_a_steady_step_waits(tiny, steps, name):
    steps(name, "cpu", 0, 1)
    with tiny.watch() as watch:
        steps(name, "cpu", 1, 4)
    assert "aten::_fused_adamw_" in watch.names  # it saw the optimiser, in the last place of a step
    assert watch.waits == set()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name in METHODS if name != "prior"])  # its matching is found on the host
def test_a_steady_step_never_synchronises_the_device(steps, name):
    steps(name, "cuda", 0, 2)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(name, "cuda", 2, 4)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_a_step_is_seeded_as_torch_would_without_its_notes():
    seed_device(12_345, torch.device("cpu"))
    drawn = torch.rand(5)
    torch.manual_seed(12_345)
    assert torch.equal(drawn, torch.rand(5))
    queued = len(torch.cuda._queued_calls)
    seed_device(6, torch.device("cpu"))
    assert len(torch.cuda._queued_calls) == queued
