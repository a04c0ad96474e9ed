"""C11: a linear probe on features that are extracted once, against a forward pass of the encoder in every epoch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from benchmarks.ratios.measure import Figure, in_turns, milliseconds

from lingula.corpora.synthetic import Synthetic
from lingula.data.loader import Loader
from lingula.data.preparation import prepare
from lingula.evaluation.finetune import finetune
from lingula.nn.frozen import encoder_to_use
from lingula.nn.image_encoders import ImageEncoder
from lingula.tasks.classification import Classification, Labelled, Probe, extract_features, film_loader, label_loss


def against_every_epoch(folder: Path, films: int, epochs: int = 50, rounds: int = 7) -> Figure:
    """The task `classification` by its protocol `mgca`, and the same head over the frozen encoder itself."""
    held_out = max(4, films // 10)
    source = Synthetic(films, held_out, held_out, film_size=96)
    corpus = prepare(source, folder / "corpus", 96, 0, log=lambda _: None)
    torch.manual_seed(0)
    encoder = ImageEncoder("small_resnet", 96).eval()
    model: Any = SimpleNamespace(
        method=SimpleNamespace(image_encoder=encoder), image_size=96, resize_to=96, device=torch.device("cpu")
    )
    task = Classification(fractions=[1.0], epochs=epochs, patience=epochs)
    data = Labelled.of(corpus, [], "corpus")
    rows, targets = data.rows, torch.from_numpy(data.targets).float()

    def ours() -> None:
        (measured,) = task.measure(model, corpus, task.cells([0]), draws=1)
        assert measured.notes["epochs"] == epochs

    def every_epoch() -> None:
        torch.manual_seed(0)
        head = torch.nn.Linear(encoder.width, targets.shape[1])
        module = Probe(head, targets, data.exclusive, encoder_to_use(encoder, finetuned=False))
        train = Loader(corpus, rows["train"], 96, 96, min(48, len(rows["train"])), training=True)

        def loss() -> float:
            logits = [
                module.head(module.encoder(batch.image).pooled) for batch in film_loader(model, corpus, rows["val"])
            ]
            return float(label_loss(torch.cat(logits), targets[torch.from_numpy(rows["val"])], data.exclusive))

        finetune(module, train, loss, False, task.tuning, 0, model.device)

    once, again = (extract_features(encoder, film_loader(model, corpus, rows["val"])) for _ in range(2))
    assert np.array_equal(once, again)  # so that extracting them once is enough
    fast, slow = in_turns(ours, every_epoch, rounds=rounds)
    detail = {"films": films, "epochs": epochs, "ours_ms": milliseconds(fast), "every_epoch_ms": milliseconds(slow)}
    return Figure(
        "C11", f"linear probe of {epochs} epochs, against a forward pass in each", slow / fast, 20, detail=detail
    )


def figures(small: bool = False) -> list[Figure]:
    """All of this file; ``small`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        return [against_every_epoch(Path(name), 24, 2, 1) if small else against_every_epoch(Path(name), 600)]
