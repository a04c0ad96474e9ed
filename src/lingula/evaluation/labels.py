"""The labels of a corpus as tasks read them. Floor 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lingula.data.prepared import PreparedCorpus
from lingula.registry import UserError

FEW_OF_A_SIDE = 5  # positives or negatives; the interval of fewer is not to be trusted


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

    def check_test(self, corpus: PreparedCorpus, rows: np.ndarray, split: str = "test") -> None:
        """
        Raises:
            UserError: if no label has both positive and negative studies among these rows of a split, so that none can
                be scored.
        """
        sides = self._sides(rows)
        if not any(min(side) for side in sides.values()):
            raise UserError(
                f"corpus {corpus.name}: no label has both positive and negative {split} studies, so none can be "
                f"scored: {_listed(sides)}"
            )

    def few(self, rows: np.ndarray) -> list[str]:
        """Remarks on the labels that cannot be scored on these rows, or have too few positives or negatives."""
        sides = self._sides(rows)
        missing = {name: side for name, side in sides.items() if not min(side)}
        few = {name: side for name, side in sides.items() if 0 < min(side) < FEW_OF_A_SIDE}
        said = []
        if missing:
            said.append(f"not scored, because they lack positive or negative studies: {_listed(missing)}")
        if few:
            said.append(
                f"fewer than {FEW_OF_A_SIDE} positive or negative studies, so that the 95 % intervals are not to be "
                f"trusted: {_listed(few)}"
            )
        return said

    def untaught(self, rows: np.ndarray) -> list[str]:
        """A remark on the labels that cannot be learnt from these training rows."""
        missing = {name: side for name, side in self._sides(rows).items() if not min(side)}
        return [f"trained without positive or without negative studies: {_listed(missing)}"] if missing else []

    def _sides(self, rows: np.ndarray) -> dict[str, tuple[int, int]]:
        """How many studies of these rows are positive and negative, by label."""
        values = self.targets[rows]
        counts = zip((values == 1).sum(0).tolist(), (values == 0).sum(0).tolist(), strict=True)
        return dict(zip(self.names, counts, strict=True))


def _listed(sides: dict[str, tuple[int, int]], most: int = 6) -> str:
    """``effusion (3 positive, 0 negative), ...``, and how many more there are."""
    shown = [f"{name} ({positive} positive, {negative} negative)" for name, (positive, negative) in sides.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
