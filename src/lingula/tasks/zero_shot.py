"""Zero-shot classification: a label is read from the similarity of a film and of sentences that name it.

One example: film 17 is nearer to "there is pleural effusion." than to "there is no pleural effusion." by 0.12: its
score for that label. No label of the corpus is seen in doing so, and no other test film.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.data.class_sample import id_hash
from lingula.data.collate import collate_reports
from lingula.data.prepared import PreparedCorpus
from lingula.data.text import report_sentences
from lingula.data.tokens import tokenise
from lingula.evaluation import (
    Cell,
    Encoders,
    Measured,
    film_loader,
    ids_of,
    patient_draws,
)
from lingula.labels import Labels
from lingula.metrics.accuracy import accuracy
from lingula.metrics.auroc import macro_auroc
from lingula.registry import UserError, nearest

PRESENT, ABSENT = "there is {}.", "there is no {}."


@dataclass
class ZeroShot:
    """AUROC and accuracy of the similarity of films and prompts, no label having been seen.

    A label's score is the cosine of the film and the mean of its prompts, less that of the film and the mean of the
    prompts that deny it; for classes that exclude each other, the first alone. (GLoRIA's official code scales by the
    other test films, so that a film's score depends on its neighbours; ours does not.)

    Beside it stands ``auroc_one_direction``: the AUROC of the mean of all labels' scores, taken as the score of each.
    It knows no label, only what the prompts have in common, such as what a "no" does; what is not above it has not told
    one label from another.

    Args:
        labels: label names, or the name of one group of exclusive classes; all labels if empty.
        prompts: YAML file, `{label: [sentence, ...]}` or `{label: {present: [...], absent: [...]}}`; by default
            "there is {label}." and "there is no {label}.".
        label_policy: `corpus` takes uncertain and unknown labels for what the corpus's own protocol does, where it has
            one; `unknown` leaves them out.
        split: `val` or `test`.
    """

    needs: ClassVar[tuple[str, ...]] = ("encode_text",)
    higher_is_better: ClassVar[dict[str, bool]] = {"auroc": True, "accuracy": True}

    labels: list[str] = field(default_factory=list)
    prompts: Path | None = None
    label_policy: Literal["corpus", "unknown"] = "corpus"
    split: Literal["val", "test"] = "test"

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Nothing is trained: one."""
        return [Cell()]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """The numbers of one encoder.

        Raises:
            UserError: for labels or prompts that do not fit, or a split in which no label has both sides.
        """
        labels = Labels.of(corpus, self.labels, self.label_policy)
        rows = np.intersect1d(corpus.rows(self.split), labels.known)
        labels.check_test(corpus, rows)
        prompts = read_prompts(self.prompts, labels.names)
        targets, weights = labels.targets[rows], patient_draws(corpus, rows, draws)
        for _ in cells:
            scores = score_films(model, corpus, rows, prompts, labels.exclusive)
            for_all = np.broadcast_to(scores.mean(1, keepdims=True), scores.shape)
            yield Measured(
                {
                    "auroc": float(macro_auroc(targets, scores)[0]),
                    "auroc_one_direction": float(macro_auroc(targets, for_all)[0]),
                    "accuracy": float(accuracy(targets, scores, labels.exclusive)[0]),
                },
                {
                    "auroc": macro_auroc(targets, scores, weights),
                    "accuracy": accuracy(targets, scores, labels.exclusive, weights),
                },
                {
                    "labels": labels.names,
                    "prompts": prompts,
                    "test_studies": len(rows),
                    "test_sha256": id_hash(ids_of(corpus, rows)),
                },
            )


def read_prompts(path: Path | None, labels: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """``{label: {"present": [...], "absent": [...]}}`` of a YAML file, or in the default words.

    Raises:
        UserError: if the file is missing or no such table, names another label, or none for one of these.
    """
    words = {label: label.replace("_", " ").lower() for label in labels}
    if path is None:
        return {label: {"present": [PRESENT.format(w)], "absent": [ABSENT.format(w)]} for label, w in words.items()}
    import yaml

    try:
        written: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as err:
        raise UserError(f"cannot read the prompts in {path}: {err}") from err
    if not isinstance(written, dict):
        raise UserError(f"{path} must be a table of labels and prompts, got {type(written).__name__}")
    for name in written:
        if name not in labels:
            raise UserError(f"{path} has prompts for '{name}', which is no label here{nearest(str(name), labels)}")
    return {label: _prompts_of(written.get(label), label, path) for label in labels}


def _prompts_of(given: Any, label: str, path: Path) -> dict[str, list[str]]:
    given = {"present": given} if isinstance(given, list) else given
    if isinstance(given, dict) and set(given) <= {"present", "absent"} and given.get("present"):
        prompts = {side: list(given.get(side) or ()) for side in ("present", "absent")}
        if all(isinstance(sentence, str) for of in prompts.values() for sentence in of):
            return prompts
    raise UserError(f"{path}: label '{label}' needs a list of sentences, or present: and absent: with one each")


def score_films(
    model: Encoders,
    corpus: PreparedCorpus,
    rows: np.ndarray,
    prompts: dict[str, dict[str, list[str]]],
    exclusive: bool,
) -> np.ndarray:
    """``(n, C)`` scores; each film's is a function of that film and the prompts alone.

    Raises:
        UserError: for a prompt of one word.
    """
    with torch.inference_mode():
        present = torch.stack([embed_prompts(model, of["present"]) for of in prompts.values()])  # (C, D)
        if not exclusive:
            absent = [
                embed_prompts(model, of["absent"]) if of["absent"] else torch.zeros_like(present[0])
                for of in prompts.values()
            ]
            present = present - torch.stack(absent)
        model.method.eval()
        scores = []
        for batch in film_loader(model, corpus, rows):
            film = F.normalize(model.method.encode_image(batch.image)[1].float(), dim=-1)
            scores.append((film @ present.T).cpu())
    found: np.ndarray = torch.cat(scores).numpy()
    return found


def embed_prompts(model: Encoders, prompts: Sequence[str]) -> Tensor:
    """``(D,)``: the mean of the prompts' global embeddings, each and all of length one."""
    split = [report_sentences(prompt) for prompt in prompts]
    for prompt, sentences in zip(prompts, split, strict=True):
        if not sentences:
            raise UserError(f"a prompt needs two words or more, got '{prompt}'")
    tokens = tokenise(split, model.tokenizer, model.method.text_encoder.max_tokens)
    reports = collate_reports(tokens, np.arange(len(split))).to(model.device)
    embedding = F.normalize(model.method.encode_text(reports)[1].float(), dim=-1)
    return F.normalize(embedding.mean(0), dim=-1)
