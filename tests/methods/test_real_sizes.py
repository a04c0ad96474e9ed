"""Every method at its paper's size, one step on two pairs: ResNet-50 and ViT-B/16 at 224 pixels, BERT-base. Slow."""

from __future__ import annotations

import gc

import pytest
import torch
from transformers import BertConfig

from lingula.methods import METHODS
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.text_encoders import TextEncoder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("encoder", ["resnet50", "vit_base_patch16_224"])
@pytest.mark.parametrize("name", METHODS)
def test_one_step_at_the_papers_size(name, encoder, tiny):
    method, recipe = METHODS[name], METHODS[name].recipes["paper"]
    if name in tiny.only_on and "vit" not in encoder:
        pytest.skip(f"{name} takes vision transformers only")
    torch.manual_seed(0)
    towers = {"image_encoder": ImageEncoder(encoder, 224)}
    if method.uses_text:
        towers["text_encoder"] = TextEncoder(BertConfig(vocab_size=40))
    model = method(**towers, image_size=224, **recipe.options)
    model.weights = dict(recipe.stages[-1].weights)
    batch = tiny.batch((2, 3), views=method.views)
    batch.images = torch.rand(2, method.views, 1, 224, 224) * 2 - 1
    terms = model(batch)
    sum(terms.values()).backward()
    model.after_step()
    assert set(terms) == {term for term, weight in model.weights.items() if weight}
    assert all(term.isfinite() for term in terms.values())
    reached = [p.grad is not None and p.grad.isfinite().all() for p in model.image_encoder.parameters()]
    assert all(reached)
    with torch.no_grad():
        seen = model.eval().encode_image(batch.image)
        features, embedding, patches = seen.features, seen.embedding, seen.patches
    assert features.pooled.shape == (2, model.image_encoder.width)
    assert embedding.isfinite().all()
    assert patches.isfinite().all()
    del model, towers, terms
    gc.collect()
