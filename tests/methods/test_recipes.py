"""The numbers of the recipes, as they stand in the papers or in the code of their authors, written down once more.

Where a method's own test already has them (CM-CGNS, PRIOR, MoCo, MoCo v2, SimSiam) they are not here.
"""

import inspect

import pytest

from lingula.data.transforms import CONVIRT_VIEW
from lingula.methods import METHODS

LOVT = {  # philip-mueller/lovt, of all three methods that are trained there on films and reports
    "learning_rate": 1e-4,
    "weight_decay": 1e-6,
    "batch_size": 32,
    "augmentation": CONVIRT_VIEW,
    "frozen_text_layers": 6,
    "warm-up": [0],
}

FACTS = {
    ("gloria", "paper"): {  # marshuang80/gloria
        "optimizer": "adam",
        "learning_rate": 5e-5,
        "betas": (0.5, 0.999),
        "weight_decay": 1e-6,
        "batch_size": 48,
        "clip": 0.25,
        "sentences": "one",
        "options": {"upsample_to": 299},
        "epochs": [50],
        "weights": [{"global": 1, "local": 1}],
    },
    ("mgca", "paper"): {  # HKU-MedAI/MGCA, the command line's defaults
        "optimizer": "adamw",
        "learning_rate": 2e-5,
        "betas": (0.9, 0.999),
        "weight_decay": 0.05,
        "batch_size": 72,
        "clip": None,
        "options": {"upsample_to": 299},
        "epochs": [50],
        "warm-up": [20],  # 40 % of all steps
        "weights": [{"instance": 1, "token": 1, "prototype": 1}],
    },
    ("lovt", "paper"): {
        **LOVT,
        "optimizer": "adamw",
        "epochs": [100],
        "weights": [
            {
                "image_to_text": 0.75,
                "text_to_image": 0.25,
                "patch_to_drawn": 0.375,
                "drawn_to_patch": 0.375,
                "sentence_to_drawn": 0.375,
                "drawn_to_sentence": 0.375,
            }
        ],
    },
    ("convirt", "paper"): {
        **LOVT,
        "optimizer": "adam",
        "sentences": "one",
        "weights": [{"image_to_text": 0.75, "text_to_image": 0.25}],
    },
    ("clip", "lovt"): {
        **LOVT,
        "optimizer": "adamw",
        "sentences": "one",
        "epochs": [100],
        "weights": [{"image_to_text": 0.75, "text_to_image": 0.25}],
        "options": {"projection_layers": 2, "temperature": 0.1, "learnable_temperature": False},
    },
    ("clip", "paper"): {"sentences": "whole", "weights": [{"image_to_text": 0.5, "text_to_image": 0.5}]},
    ("siglip", "paper"): {"sentences": "whole", "weights": [{"sigmoid": 1}]},
    ("simclr", "paper"): {  # philip-mueller/lovt's SimCLR
        "optimizer": "adam",
        "learning_rate": 3e-4,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "epochs": [100],
        "warm-up": [1],
    },
    ("simclr", "original"): {  # google-research/simclr
        "optimizer": "lars",
        "learning_rate": 0.3,
        "weight_decay": 1e-6,
        "batch_size": 256,
        "pretrained": False,
        "warm-up": [10],
    },
    ("barlow-twins", "paper"): {  # facebookresearch/barlowtwins; the decay is the paper's
        "optimizer": "lars",
        "learning_rate": 0.2 * 2048 / 256,
        "bias_learning_rate": 0.0048 * 2048 / 256,
        "weight_decay": 1.5e-6,
        "batch_size": 2048,
        "pretrained": False,
        "epochs": [1000],
        "warm-up": [10],
        "weights": [{"invariance": 1, "redundancy": 0.0051}],
    },
    ("vicreg", "paper"): {  # arXiv:2105.04906
        "optimizer": "lars",
        "learning_rate": 0.2 * 2048 / 256,
        "weight_decay": 1e-6,
        "batch_size": 2048,
        "pretrained": False,
        "epochs": [1000],
        "warm-up": [10],
        "weights": [{"invariance": 25, "variance": 25, "covariance": 1}],
    },
    ("mae", "paper"): {  # facebookresearch/mae, its instructions
        "optimizer": "adamw",
        "learning_rate": 1.5e-4 * 4096 / 256,
        "betas": (0.9, 0.95),
        "weight_decay": 0.05,
        "batch_size": 4096,
        "pretrained": False,
        "epochs": [800],
        "warm-up": [40],
    },
}

OPTIONS = {  # of the class, where the recipe changes nothing
    "barlow-twins": {"projector": (8192, 8192, 8192)},
    "vicreg": {"expander": (8192, 8192, 8192)},
    "mae": {"mask_ratio": 0.75, "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16},
    "siglip": {"scale": 10.0, "bias": -10.0},
    "convirt": {"temperature": 0.1, "dim": 512},
    "clip": {"temperature": 0.07, "learnable_temperature": True},
    "gloria": {"temperature_attention": 1 / 4, "temperature_words": 1 / 5, "temperature": 1 / 10, "text_layers": 4},
    "mgca": {"dim": 128, "hidden": 2048, "temperature": 0.07, "temperature_local": 0.1, "prototypes": 500},
}


@pytest.mark.parametrize(("name", "recipe"), FACTS)
def test_the_recipe_is_that_of_its_source(name, recipe):
    of, facts = METHODS[name].recipes[recipe], dict(FACTS[name, recipe])
    found = {key: getattr(of, key, None) for key in facts}
    found["epochs"] = [stage.epochs for stage in of.stages]
    found["weights"] = [stage.weights for stage in of.stages]
    found["warm-up"] = [of.warmup_epochs if s.warmup_epochs is None else s.warmup_epochs for s in of.stages]
    assert {key: found[key] for key in facts} == facts


@pytest.mark.parametrize("name", OPTIONS)
def test_the_defaults_are_those_of_its_source(name):
    defaults = {key: p.default for key, p in inspect.signature(METHODS[name]).parameters.items()}
    assert {key: defaults.get(key, "no such option") for key in OPTIONS[name]} == OPTIONS[name]
