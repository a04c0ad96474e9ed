"""The labels of a corpus as tasks read them. Floor 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lingula.data.prepared import PreparedCorpus
from lingula.registry import UserError


@dataclass
class Labels:
    """Labels of every study.

    Attributes:
        names: C of them.
        exclusive: whether they are the classes of one group.
        targets: ``(all studies, C)`` 1, 0, NaN unknown.
    """

    names: list[str]
    exclusive: bool
    targets: np.ndarray

    @classmethod
    def of(cls, corpus: PreparedCorpus, names: Sequence[str], policy: str = "corpus") -> Labels:
        """Labels by name, the classes of a group by its name, or all.

        Args:
            corpus: prepared.
            names: of labels, or one name of a group; all labels if empty.
            policy: ``corpus`` takes uncertain and unknown labels for what the corpus's own protocol does, where it has
                one; ``unknown`` takes uncertain for unknown.
        Raises:
            UserError: for a label that the corpus does not have, or where it has none.
        """
        labels = list(names) or list(corpus.label_names)
        if len(labels) == 1 and labels[0] in corpus.label_groups:
            labels = list(corpus.label_groups[labels[0]])
        if not labels:
            raise UserError(f"corpus {corpus.name} has no labels")
        targets = corpus.labels(labels)
        if policy == "corpus":
            for column, name in enumerate(labels):
                values = targets[:, column]
                uncertain, unknown = values == -1, np.isnan(values)
                if name in corpus.uncertain_as:
                    values[uncertain] = corpus.uncertain_as[name]
                if name in corpus.unknown_as:
                    values[unknown] = corpus.unknown_as[name]
        targets = np.where(targets == -1, np.nan, targets)  # uncertain is unknown here, not 0
        exclusive = any(set(labels) == set(group) for group in corpus.label_groups.values())
        return cls(labels, exclusive, targets)

    @property
    def known(self) -> np.ndarray:
        """Positions of the studies with any label; of exclusive ones with just one present, for a film of unknown class
        is of no class, least of all the first."""
        known = (self.targets == 1).sum(1) == 1 if self.exclusive else (~np.isnan(self.targets)).any(1)
        return np.flatnonzero(known)

    def check_test(self, corpus: PreparedCorpus, rows: np.ndarray) -> None:
        """
        Raises:
            UserError: if on these rows no label has both sides, so that none can be scored.
        """
        test = self.targets[rows]
        if not ((test == 1).any(0) & (test == 0).any(0)).any():
            raise UserError(f"corpus {corpus.name}: no label has both sides in the test split, so none can be scored")
