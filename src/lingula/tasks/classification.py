"""Classification: a linear head on the image encoder's mean-pooled features, the encoder frozen or trained with it.

One example: film 17, features (96,), labels effusion 1, pneumothorax 0, ...; the head's AUROC over the test films is
the number of the field's Table I. A frozen encoder is frozen whole and in evaluation mode, so its features are
extracted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lingula.batch import Batch
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.finetune import Outcome, Tuning, finetune, tuning_batch
from lingula.evaluation.labels import Labels
from lingula.evaluation.statistics import few_patients, patient_draws
from lingula.evaluation.studies import draw_subset, film_loader, ids_of, labelled_rows, patients_of
from lingula.evaluation.task import Cell, Encoders, Measured, cells_of
from lingula.metrics.accuracy import accuracy
from lingula.metrics.auroc import macro_auroc
from lingula.nn.frozen import encoder_to_use
from lingula.records import id_hash
from lingula.registry import UserError

# MGCA's protocol, which CM-CGNS follows. It freezes the encoder; the rate of a trained one is ours, the field's vary.
PROTOCOLS = {"mgca": Tuning(learning_rate=5e-4, weight_decay=1e-6, batch_size=48, epochs=100, patience=10)}
FINETUNED = {"mgca": Tuning(learning_rate=1e-4, weight_decay=1e-6, batch_size=48, epochs=50, patience=10)}
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the logistic regression's fit, the inverse of its penalty


@dataclass
class Classification:
    """How well a linear head reads labels from the image encoder's features: AUROC and accuracy.

    Independent labels have a sigmoid each, those of one label group exclude each other and share a softmax. Unknown and
    uncertain labels count neither in the loss nor in a metric, unless the corpus's own protocol says what to take them
    for. A label without both positive and negative test studies is left out of the macro AUROC;
    ``classes_scored`` is the number of labels in it.

    Args:
        labels: label names, or the name of one group of exclusive classes (default: all labels).
        encoder: `frozen`: train the linear head alone; `finetuned`: train the encoder with it.
        protocol: `mgca`, AdamW with early stopping on the validation loss, or `logistic`, scikit-learn's regression on
            standardised features, its strength chosen on validation, which converges on few films (frozen only).
        fractions: shares of the labelled training patients.
        label_policy: `corpus` takes uncertain and unknown labels for what the corpus's own protocol does, where it has
            one (CheXpert); `unknown` leaves them out.
        learning_rate: peak learning rate (default: the protocol's).
        epochs: largest number of epochs (default: the protocol's).
        batch_size: images per step (default: the protocol's).
        patience: epochs without a better validation loss after which training stops (default: the protocol's).
    Raises:
        UserError: for options that contradict each other.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[dict[str, bool]] = {"auroc": True, "accuracy": True}

    labels: list[str] = field(default_factory=list)
    encoder: Literal["frozen", "finetuned"] = "frozen"
    protocol: Literal["mgca", "logistic"] = "mgca"
    fractions: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    label_policy: Literal["corpus", "unknown"] = "corpus"
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("learning_rate", "epochs", "batch_size", "patience")}
        cells_of(self.fractions, ())
        if self.protocol == "logistic":
            if self.encoder != "frozen" or any(value is not None for value in given.values()):
                raise UserError(
                    "the protocol logistic fits on frozen features and takes no rates; choose mgca for those"
                )
            return
        known = PROTOCOLS if self.encoder == "frozen" else FINETUNED
        if self.protocol not in known:
            raise UserError(f"unknown protocol '{self.protocol}'; known: mgca, logistic")
        self.tuning = known[self.protocol].changed(**given)

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Each seed draws its own subset and starts its own head; with all labels a regression has nothing to draw."""
        seeds_of = dict.fromkeys(self.fractions, seeds)
        if self.protocol == "logistic":
            seeds_of = {fraction: seeds if fraction < 1 else seeds[:1] for fraction in self.fractions}
        return [cell for fraction in self.fractions for cell in cells_of([fraction], seeds_of[fraction])]

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """Test AUROC and accuracy of a head for each cell.

        Raises:
            UserError: for missing labels or splits, or a test split in which no label has both sides.
        """
        data = Labelled.of(corpus, self.labels, self.label_policy)
        weights = patient_draws(corpus, data.rows["test"], draws)
        features = self._features(model, corpus, data) if self.encoder == "frozen" else {}
        remarks = few_patients(corpus, data.rows["test"]) + data.labels.few(data.rows["test"])
        for cell in cells:
            train = data.rows["train"]
            subset = draw_subset(patients_of(corpus, train), data.targets[train], *cell)
            notes: dict[str, Any] = {}
            if self.protocol == "logistic":
                scores = _logistic_head(features, subset, data)
            else:
                head, outcome = self._train(model, corpus, data, features, subset, cell.seed)
                scores, notes = head, outcome.notes()
            test = data.targets[data.rows["test"]]
            found = macro_auroc(test, scores), accuracy(test, scores, data.exclusive)
            yield Measured(
                numbers={
                    "auroc": float(found[0][0]),
                    "accuracy": float(found[1][0]),
                    "classes_scored": float(((test == 1).any(0) & (test == 0).any(0)).sum()),
                },
                replicates={
                    "auroc": macro_auroc(test, scores, weights),
                    "accuracy": accuracy(test, scores, data.exclusive, weights),
                },
                notes={
                    "protocol": self.protocol,
                    "encoder_mode": self.encoder,
                    "labels": data.labels.names,
                    "train_studies": len(subset),
                    "test_studies": len(test),
                    "test_sha256": id_hash(ids_of(corpus, data.rows["test"])),
                    "remarks": remarks + data.labels.untaught(train[subset]),
                    **notes,
                },
                cell=cell,
                subset_ids=ids_of(corpus, train[subset]),
            )

    def _features(self, model: Encoders, corpus: PreparedCorpus, data: Labelled) -> dict[str, np.ndarray]:
        encoder = model.method.image_encoder
        return {split: extract_features(encoder, film_loader(model, corpus, rows)) for split, rows in data.rows.items()}

    def _train(
        self,
        model: Encoders,
        corpus: PreparedCorpus,
        data: Labelled,
        features: dict[str, np.ndarray],
        subset: np.ndarray,
        seed: int,
    ) -> tuple[np.ndarray, Outcome]:
        """Test logits ``(n, C)`` of the weights with the lowest validation loss."""
        rows, device = data.rows, model.device
        targets = torch.from_numpy(data.targets).float().to(device)
        batch_size = tuning_batch(self.tuning, len(subset))
        torch.manual_seed(seed)
        head = nn.Linear(model.method.image_encoder.width, len(data.labels.names)).to(device)
        if self.encoder == "frozen":
            module: Any = Probe(head, targets, data.exclusive, nn.Identity())
            inputs = {split: torch.from_numpy(array).to(device) for split, array in features.items()}
            train: Any = FeatureLoader(inputs["train"][subset], rows["train"][subset], batch_size, seed)

            def logits(split: str) -> Tensor:
                output: Tensor = module.head(inputs[split])
                return output
        else:
            encoder = encoder_to_use(model.method.image_encoder, finetuned=True)
            module = Probe(head, targets, data.exclusive, encoder)
            settings = model.image_size, model.resize_to, batch_size
            train = Loader(corpus, rows["train"][subset], *settings, training=True, seed=seed, device=device)

            def logits(split: str) -> Tensor:
                loader = film_loader(model, corpus, rows[split])
                return torch.cat([module.head(module.encoder(batch.image).pooled).float() for batch in loader])

        def loss_on_val() -> float:
            return float(label_loss(logits("val"), targets[torch.from_numpy(rows["val"])], data.exclusive))

        outcome = finetune(module, train, loss_on_val, False, self.tuning, seed, device)
        with torch.inference_mode():
            scores: np.ndarray = logits("test").cpu().numpy()
        return scores, outcome


@dataclass
class Labelled:
    """The labels of a corpus, and the studies of each split that have one.

    Attributes:
        labels: see there.
        rows: ``{split: (n,)}``.
    """

    labels: Labels
    rows: dict[str, np.ndarray]

    @classmethod
    def of(cls, corpus: PreparedCorpus, names: Sequence[str], policy: str) -> Labelled:
        """
        Raises:
            UserError: for missing labels or splits, or a test split in which no label has both sides.
        """
        labels = Labels.of(corpus, names, policy)
        rows = labelled_rows(corpus, labels.known, "labels")
        labels.check_test(corpus, rows["test"])
        return cls(labels, rows)

    @property
    def targets(self) -> np.ndarray:
        """``(all studies, C)`` 1, 0, NaN unknown."""
        return self.labels.targets

    @property
    def exclusive(self) -> bool:
        """Whether the labels are the classes of one group."""
        return self.labels.exclusive


@torch.inference_mode()
def extract_features(image_encoder: Any, loader: Loader) -> np.ndarray:
    """Mean-pooled features of every film of the loader, ``(n, C)`` float32, the encoder frozen and in evaluation
    mode."""
    image_encoder.eval()
    return torch.cat([image_encoder(batch.image).pooled.float().cpu() for batch in loader]).numpy()


class Probe(nn.Module):
    """An encoder under a linear head; its one term is the loss of the known labels.

    Args:
        head: ``(B, C)`` features to logits.
        targets: ``(all studies, C)`` of the corpus; a batch knows its rows.
        exclusive: whether the labels are classes of one group.
        encoder: of films, or the identity where batches bring features.
    """

    def __init__(self, head: nn.Module, targets: Tensor, exclusive: bool, encoder: nn.Module) -> None:
        super().__init__()
        self.head, self.encoder, self.exclusive = head, encoder, exclusive
        self.register_buffer("targets", targets, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encoder(batch.image)
        features = features if isinstance(features, Tensor) else features.pooled
        assert isinstance(self.targets, Tensor)
        return {"label": label_loss(self.head(features), self.targets[batch.rows], self.exclusive)}

    def after_step(self) -> None:
        """Nothing moves without gradient."""


class FeatureLoader:
    """Batches of features that were extracted once, shuffled anew every epoch; the last, smaller one is kept.

    Args:
        features: ``(n, C)``.
        rows: ``(n,)`` of the corpus.
        batch_size: B.
        seed: of the order.
    """

    def __init__(self, features: Tensor, rows: np.ndarray, batch_size: int, seed: int) -> None:
        self.features, self.rows = features, torch.from_numpy(rows).to(features.device)
        self.batch_size, self.seed = batch_size, seed
        self._shuffled: tuple[int, Tensor, Tensor] | None = None  # the epoch that is being read

    def __len__(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """The ``step``-th batch, counted over epochs; its "films" are ``(B, 1, C)`` features."""
        epoch, place = divmod(step, len(self))
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = None  # there is room for one copy of the features beside them, not for two
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.features))
            places = torch.from_numpy(order).to(self.features.device)
            self._shuffled = epoch, self.features[places][:, None], self.rows[places]
        own = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return Batch(self._shuffled[1][own], self._shuffled[2][own], seed=step)


def label_loss(logits: Tensor, targets: Tensor, exclusive: bool) -> Tensor:
    """Cross-entropy over exclusive classes, else binary cross-entropy over the labels that are known; in nats.

    Args:
        logits: ``(B, C)``.
        targets: ``(B, C)`` 1, 0, NaN unknown.
        exclusive: whether one of the classes is 1 and the others 0.
    """
    if exclusive:
        return F.cross_entropy(logits, targets.nan_to_num().argmax(1))
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def _logistic_head(features: dict[str, np.ndarray], subset: np.ndarray, data: Labelled) -> np.ndarray:
    """Test decision values ``(n, C)`` of the strength with the highest validation AUROC."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    targets = data.targets[data.rows["train"]][subset]
    scaler = StandardScaler().fit(features["train"][subset])
    x, x_val, x_test = (
        scaler.transform(array) for array in (features["train"][subset], features["val"], features["test"])
    )
    solver = "newton-cholesky" if x.shape[1] <= 512 else "lbfgs"

    def fit(strength: float) -> tuple[np.ndarray, np.ndarray]:
        if data.exclusive:
            classes = np.nan_to_num(targets).argmax(1)
            if len(np.unique(classes)) < 2:  # the subset shows one class only: everything is of that
                only = np.eye(targets.shape[1])[classes[0]]
                return np.tile(only, (len(x_val), 1)), np.tile(only, (len(x_test), 1))
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
            if len(np.unique(y)) < 2:  # the subset shows one side only: everything is on that
                side = 2.0 * y[0] - 1 if len(y) else 0.0
                columns.append((np.full(len(x_val), side), np.full(len(x_test), side)))
                continue
            model = LogisticRegression(C=strength, solver=solver, max_iter=1000).fit(x[known], y)
            columns.append((model.decision_function(x_val), model.decision_function(x_test)))
        return np.stack([c[0] for c in columns], 1), np.stack([c[1] for c in columns], 1)

    val_targets = data.targets[data.rows["val"]]
    fits = [fit(strength) for strength in STRENGTHS]
    return max(fits, key=lambda scores: np.nan_to_num(macro_auroc(val_targets, scores[0])[0]))[1]
