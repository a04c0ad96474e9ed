"""How ImageNet's weights are to be used as a baseline: `python benchmarks/imagenet_row.py OUT [--seed 0] [--steps 600]`

ImageNet's weights cannot be had everywhere, so a stand-in is trained here, as they were: a ResNet-10 of three
channels, on colour images normalised by ImageNet's mean and standard deviation, of which it learns to tell 18 classes
(six shapes in three textures, drawn in any colour, size and place). Its file is then the ImageNet row of `lingula
benchmark`, on the phantoms of `lingula prepare synthetic`, in four ways: the first layer folded to one channel in
[-1, 1], or three channels by the weights' own mean and standard deviation; and BatchNorm statistics of the weights, or
of 512 training images of the corpus. Beside it a random encoder, in its two. Every number is the test AUROC of a
logistic regression on frozen features, with its interval over the test images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F

from lingula.commands.prepare import prepare
from lingula.corpora.synthetic import Synthetic
from lingula.data.prepared import PreparedCorpus
from lingula.metrics.bootstrap import interval
from lingula.nn.image_encoders import IMAGENET
from lingula.runs.build import build_method
from lingula.runs.measure import recalibrate
from lingula.runs.model import Model
from lingula.tasks.classification import Classification

SIDE, SMALLER, ENCODER = 64, 48, "resnet10t"  # pixels of the phantoms, of the colour images
SHAPES, TEXTURES = 6, 3


def colour_images(count: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """``(count, 3, SMALLER, SMALLER)`` in [0, 1], an object on a shaded ground each, and its class ``(count,)``."""
    y, x = np.mgrid[:SMALLER, :SMALLER].astype(np.float32) / SMALLER - 0.5
    label = random.integers(SHAPES * TEXTURES, size=count)
    images = np.empty((count, 3, SMALLER, SMALLER), dtype=np.float32)
    for i, (shape, texture) in enumerate(zip(label // TEXTURES, label % TEXTURES, strict=True)):
        size, angle = random.uniform(0.12, 0.3), random.uniform(0, np.pi)
        dx, dy = x - random.uniform(-0.25, 0.25), y - random.uniform(-0.25, 0.25)
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        r = np.hypot(u, v)
        inside = (
            r < size,
            (r < size) & (r > 0.6 * size),
            np.maximum(abs(u), abs(v)) < 0.85 * size,
            (abs(u) < 0.25 * size) & (abs(v) < 1.3 * size),
            ((abs(u) < 0.3 * size) & (abs(v) < size)) | ((abs(v) < 0.3 * size) & (abs(u) < size)),
            (v > -0.6 * size) & (v < 0.9 * size - 1.7 * abs(u)),
        )[shape]
        waves = (0, np.sin(60 * u), np.sin(60 * u) * np.sin(60 * v))[texture]
        ground, paint, slope = random.uniform(0.1, 0.9, 3), random.uniform(0, 1, 3), random.uniform(-0.4, 0.4, 2)
        shade = slope[0] * x + slope[1] * y + random.normal(0, 0.04, (SMALLER, SMALLER))
        drawn = np.where(inside, paint[:, None, None] + 0.25 * waves, ground[:, None, None]) + shade
        images[i] = np.clip(drawn, 0, 1)
    return torch.from_numpy(images), torch.from_numpy(label)


def train_stand_in(steps: int, seed: int) -> tuple[dict[str, torch.Tensor], float]:
    """The weights, and the share of 500 new images whose class they tell."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    model = timm.create_model(ENCODER, num_classes=SHAPES * TEXTURES)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        images, label = colour_images(32, random)
        loss = F.cross_entropy(model((images - mean) / std), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    model.eval()
    images, label = colour_images(500, random)
    with torch.inference_mode():
        right = (model((images - mean) / std).argmax(1) == label).float().mean()
    return model.state_dict(), float(right)


def encoder(weights: Path | None, normalised: bool, seed: int) -> Model:
    torch.manual_seed(seed)
    method = build_method("simclr", {}, ENCODER, None, SIDE, weights or False, normalised=normalised)
    made = {"method": "simclr", "image_size": SIDE, "resize_to": SIDE, "plan": {"batch_size": 64}}
    made["checkpoint_sha256"] = "imagenet-stand-in" if weights else f"random-{seed}"
    return Model(method.eval(), None, made, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--train", type=int, default=800, help="phantoms to fit on")
    options = parser.parse_args()
    started = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    weights = options.out / f"stand-in-{options.steps}-{options.seed}.pth"
    if not weights.is_file():
        state, right = train_stand_in(options.steps, options.seed)
        torch.save(state, weights)
        print(f"stand-in: {right:.3f} of 500 new images right, {time.perf_counter() - started:.0f} s", flush=True)
    folder = options.out / f"phantoms-{options.train}"
    if not folder.is_dir():
        prepare(Synthetic(options.train, 100, 400, film_size=SIDE), folder, SIDE)
    corpus = PreparedCorpus.open(folder)
    task = Classification(labels=list(corpus.label_names), protocol="logistic", fractions=[1.0])
    print("| weights | input | BatchNorm | test AUROC | 95 % interval |\n|---|---|---|---|---|")
    for file, normalised in ((weights, False), (weights, True), (None, False)):
        for of_the_corpus in (False, True):
            model = encoder(file, normalised, options.seed)
            if of_the_corpus:
                recalibrate(model, corpus)
            (cell,) = task.measure(model, corpus, task.cells([options.seed]), 500)
            low, high = interval(cell.replicates["auroc"])
            about = " | ".join((model.name, *model.conditions.values()))
            print(f"| {about} | {cell.numbers['auroc']:.3f} | {low:.3f} to {high:.3f} |", flush=True)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
