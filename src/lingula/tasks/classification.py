"""Linear classification: a linear head on the frozen, mean-pooled features of the image encoder.

One example: film 17, features (96,), labels effusion 1, pneumothorax 0, ...; the head's AUROC over the test films is
the number of the field's Table I. The encoder is frozen whole and in evaluation mode, so features are extracted once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.metrics.auroc import macro_auroc
from lingula.metrics.bootstrap import bootstrap_weights, interval
from lingula.registry import UserError

higher_is_better = {"auroc": True, "accuracy": True}
PROTOCOLS = ("mgca", "logistic")


@torch.inference_mode()
def extract_features(image_encoder: Any, loader: Loader) -> np.ndarray:
    """Mean-pooled features of every film of the loader, ``(n, C)`` float32, the encoder frozen and in evaluation
    mode."""
    image_encoder.eval()
    return torch.cat([image_encoder(batch.image).pooled.float().cpu() for batch in loader]).numpy()


def draw_subset(patients: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A share of the studies, drawn by patient, seeded, stratified by each patient's rarest label.

    Args:
        patients: ``(n,)`` patient of each study.
        labels: ``(n, C)`` 1, 0 or NaN.
        fraction: share of the patients, in (0, 1]. Of every stratum at least one patient is drawn.
        seed: of the draw.
    Returns:
        ``(m,)`` ascending places in [0, n).
    """
    if fraction >= 1:
        return np.arange(len(patients))
    names, member = np.unique(patients, return_inverse=True)
    frequency = np.nansum(labels == 1, axis=0)
    rarity = np.where(labels == 1, frequency, np.inf)  # (n, C)
    stratum_of_study = np.where(np.isfinite(rarity.min(1)), rarity.argmin(1), -1)
    rarest_first = np.argsort(np.where(stratum_of_study < 0, np.inf, rarity.min(1)), kind="stable")
    stratum = np.full(len(names), -1)
    for study in rarest_first[::-1]:  # the rarest label of a patient's studies is written last
        stratum[member[study]] = stratum_of_study[study]
    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(names), dtype=bool)
    for value in np.unique(stratum):
        candidates = np.flatnonzero(stratum == value)
        count = max(1, round(fraction * len(candidates)))
        drawn[rng.permutation(candidates)[:count]] = True
    return np.flatnonzero(drawn[member])


def id_hash(ids: Sequence[str]) -> str:
    """SHA-256 over the sorted ids: equal for equal subsets, wherever they were drawn."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


@dataclass
class LinearProbe:
    """The data of a probe, split and labelled; :meth:`run` scores one encoder on it.

    Args:
        corpus: prepared, with labels.
        labels: label names: several are independent (sigmoid), those of one label group exclude each other (softmax).
        protocol: ``mgca``: AdamW(5e-4, weight decay 1e-6), batch 48, cosine per epoch, at most 100 epochs, patience 10
            on the validation loss (the field's protocol; features are extracted once, so without augmentation).
            ``logistic``: standardised features, scikit-learn's logistic regression, its strength chosen on validation.
        fractions: shares of the training patients.
        seeds: each draws its own subset and starts its own head. A fraction of 1 is the same subset for every seed.
    Raises:
        UserError: for missing labels or splits, or an unknown protocol.
    """

    corpus: PreparedCorpus
    labels: list[str]
    protocol: str = "mgca"
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise UserError(f"unknown protocol '{self.protocol}'; known: {', '.join(PROTOCOLS)}")
        if not self.labels:
            raise UserError(f"corpus {self.corpus.name} has no labels to classify")
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UserError(f"fractions of the labels lie in (0, 1], got {self.fractions}")
        self.rows = {split: self.corpus.rows(split) for split in ("train", "val", "test")}
        values = self.corpus.labels(self.labels)
        self.targets = np.where(values == -1, np.nan, values)  # uncertain is unknown here, not 0
        self.exclusive = any(set(self.labels) == set(group) for group in self.corpus.label_groups.values())
        # A film of unknown class is of no class, least of all of the first.
        labelled = np.asarray((~np.isnan(self.targets)).any(1))
        self.rows = {split: rows[labelled[rows]] for split, rows in self.rows.items()}
        for split, rows in self.rows.items():
            if len(rows) == 0:
                raise UserError(f"corpus {self.corpus.name} has no labelled {split} split to probe on")
        test = self.targets[self.rows["test"]]
        if not ((test == 1).any(0) & (test == 0).any(0)).any():
            raise UserError(
                f"corpus {self.corpus.name}: no label has both sides in the test split, so none can be scored"
            )
        self.patients = self.corpus.index["patient_id"].to_numpy().astype(str)

    def features(self, image_encoder: Any, loader_of: Any) -> dict[str, np.ndarray]:
        """``{split: (n, C)}``; ``loader_of(rows)`` makes a loader that does not train."""
        return {split: extract_features(image_encoder, loader_of(rows)) for split, rows in self.rows.items()}

    def run(self, features: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """One row a (fraction, seed): test ``auroc``, ``accuracy``, ``scores`` and what they were made from."""
        train, test = self.rows["train"], self.rows["test"]
        for fraction in self.fractions:
            for seed in self.seeds:
                if fraction >= 1 and self.protocol == "logistic" and seed != self.seeds[0]:
                    continue  # nothing is drawn: the same head again
                subset = draw_subset(self.patients[train], self.targets[train], fraction, seed)
                ids = self.corpus.index["study_id"].to_numpy().astype(str)[train[subset]]
                scores = self._head(features, subset, seed)
                targets = self.targets[test]
                yield {
                    "fraction": fraction,
                    "seed": seed,
                    "train_studies": len(subset),
                    "subset_sha256": id_hash(ids),
                    "subset_ids": ids.tolist(),
                    "auroc": float(macro_auroc(targets, scores)[0]),
                    "accuracy": float(self._accuracy(targets, scores)[0]),
                    "classes_scored": int(((targets == 1).any(0) & (targets == 0).any(0)).sum()),
                    "scores": scores,
                }

    def summarise(self, rows: Sequence[dict[str, Any]], draws: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Mean, standard deviation and 95 % interval of the rows of one fraction.

        The interval is a bootstrap over the test patients and, where there are several, over the subsets: it holds the
        luck of both.
        """
        weights = bootstrap_weights(self.patients[self.rows["test"]], draws, seed)
        targets = self.targets[self.rows["test"]]
        picked = np.random.default_rng(seed + 1).integers(len(rows), size=(len(rows), draws))

        def spread(of_row: Callable[[dict[str, Any]], np.ndarray]) -> tuple[float, float]:
            per_row = np.stack([of_row(row) for row in rows])  # (rows, draws)
            return interval(np.take_along_axis(per_row, picked, axis=0).mean(0))

        low, high = spread(lambda row: macro_auroc(targets, row["scores"], weights))
        accuracy_low, accuracy_high = spread(lambda row: self._accuracy(targets, row["scores"], weights))
        aurocs, accuracies = [row["auroc"] for row in rows], [row["accuracy"] for row in rows]
        return {
            "mean": float(np.mean(aurocs)),
            "sd": float(np.std(aurocs, ddof=1)) if len(rows) > 1 else None,
            "low": low,
            "high": high,
            "accuracy": float(np.mean(accuracies)),
            "accuracy_low": accuracy_low,
            "accuracy_high": accuracy_high,
            "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(rows) > 1 else None,
            "seeds": [row["seed"] for row in rows],
            "train_studies": rows[0]["train_studies"],
        }

    def _accuracy(self, targets: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Share of films whose class is right, or of known labels whose side of one half is right; ``(draws,)``."""
        weights = np.ones((1, len(targets))) if weights is None else weights
        known = ~np.isnan(targets)
        right = (scores > 0) == (targets == 1)
        if self.exclusive:
            known = known.any(1, keepdims=True)
            right = (scores.argmax(1) == np.nan_to_num(targets).argmax(1))[:, None]
        accuracy: np.ndarray = (weights @ (right & known).sum(1)) / (weights @ known.sum(1))
        return accuracy

    def _head(self, features: dict[str, np.ndarray], subset: np.ndarray, seed: int) -> np.ndarray:
        train, targets = features["train"][subset], self.targets[self.rows["train"]][subset]
        val = features["val"], self.targets[self.rows["val"]]
        if self.protocol == "mgca":
            return _adamw_head(train, targets, *val, features["test"], seed, self.exclusive)
        return _logistic_head(train, targets, *val, features["test"], self.exclusive)


def _loss(logits: torch.Tensor, targets: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Cross-entropy over exclusive classes, else binary cross-entropy over the labels that are known."""
    if exclusive:
        return F.cross_entropy(logits, targets.nan_to_num().argmax(1))
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def _adamw_head(
    train: np.ndarray,
    targets: np.ndarray,
    val: np.ndarray,
    val_targets: np.ndarray,
    test: np.ndarray,
    seed: int,
    exclusive: bool,
    epochs: int = 100,
    patience: int = 10,
) -> np.ndarray:
    """Test logits ``(n, C)`` of the head with the lowest validation loss."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(train), torch.from_numpy(targets).float()
    head = torch.nn.Linear(x.shape[1], y.shape[1])
    bound = x.shape[1] ** -0.5
    for parameter in head.parameters():
        torch.nn.init.uniform_(parameter, -bound, bound, generator=generator)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4, weight_decay=1e-6)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, best_loss, waited = None, float("inf"), 0
    for _ in range(epochs):
        for places in torch.randperm(len(x), generator=generator).split(48):
            optimizer.zero_grad()
            _loss(head(x[places]), y[places], exclusive).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            loss = float(_loss(head(torch.from_numpy(val)), torch.from_numpy(val_targets).float(), exclusive))
        if loss < best_loss:
            best, best_loss, waited = {k: v.clone() for k, v in head.state_dict().items()}, loss, 0
        else:
            waited += 1
            if waited >= patience:
                break
    assert best is not None
    head.load_state_dict(best)
    with torch.no_grad():
        scores: np.ndarray = head(torch.from_numpy(test)).numpy()
    return scores


def _logistic_head(
    train: np.ndarray, targets: np.ndarray, val: np.ndarray, val_targets: np.ndarray, test: np.ndarray, exclusive: bool
) -> np.ndarray:
    """Test decision values ``(n, C)`` of the strength with the highest validation AUROC."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    x, x_val, x_test = scaler.transform(train), scaler.transform(val), scaler.transform(test)
    solver = "newton-cholesky" if x.shape[1] <= 512 else "lbfgs"

    def fit(strength: float) -> tuple[np.ndarray, np.ndarray]:
        if exclusive:
            classes = np.nan_to_num(targets).argmax(1)
            model = LogisticRegression(C=strength, solver="lbfgs", max_iter=1000).fit(x, classes)
            val_scores = np.full((len(x_val), targets.shape[1]), -np.inf)
            test_scores = np.full((len(x_test), targets.shape[1]), -np.inf)
            val_scores[:, model.classes_] = np.log(model.predict_proba(x_val).clip(1e-12))
            test_scores[:, model.classes_] = np.log(model.predict_proba(x_test).clip(1e-12))
            return val_scores, test_scores
        columns = []
        for column in range(targets.shape[1]):
            known = ~np.isnan(targets[:, column])
            y = targets[known, column]
            if len(np.unique(y)) < 2:  # the subset shows one side only: nothing to learn
                columns.append((np.zeros(len(x_val)), np.zeros(len(x_test))))
                continue
            model = LogisticRegression(C=strength, solver=solver, max_iter=1000).fit(x[known], y)
            columns.append((model.decision_function(x_val), model.decision_function(x_test)))
        return np.stack([c[0] for c in columns], 1), np.stack([c[1] for c in columns], 1)

    fits = [fit(strength) for strength in (1e-3, 1e-2, 1e-1, 1.0)]
    return max(fits, key=lambda scores: np.nan_to_num(macro_auroc(val_targets, scores[0])[0]))[1]
