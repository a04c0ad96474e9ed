"""t-SNE of the image features (Fig. 5 of CM-CGNS): films with one label each, coloured by it.

t-SNE shows neighbourhoods only: distances between groups and their sizes mean nothing (van der Maaten and Hinton 2008).
So a number stands beside it that is taken from the features themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, a little darker or lighter where they would vanish on white or black; and a shape each.
MARKS = (
    ("#2f86c9", "o"), ("#d55e00", "^"), ("#0f9e78", "s"), ("#cc79a7", "D"), ("#d9a400", "v"), ("#8a7ad6", "P"),
)  # fmt: skip


def singly_labelled(labels: np.ndarray, most: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films with exactly one positive label among the most frequent ones.

    Args:
        labels: ``(n, C)`` 1, 0, -1 or NaN.
        most: labels that are looked at.
    Returns:
        ``(m,)`` places of the films; ``(m,)`` column of each film's label; ``(<= most,)`` the columns, most frequent
        first.
    """
    positive = labels == 1
    columns = np.argsort(-positive.sum(0), kind="stable")[:most]
    columns = columns[positive[:, columns].any(0)]
    films = np.flatnonzero(positive[:, columns].sum(1) == 1)
    return films, columns[positive[films][:, columns].argmax(1)] if len(films) else films, columns


def standardised(features: np.ndarray) -> np.ndarray:
    """Every column to mean 0 and standard deviation 1; constant columns to 0."""
    spread = features.std(0)
    return (features - features.mean(0)) / np.where(spread > 0, spread, 1.0)


def neighbour_agreement(features: np.ndarray, labels: np.ndarray, neighbours: int = 5) -> float:
    """Mean share of a film's nearest neighbours, in the features (not on the map), that have its label.

    Args:
        features: ``(n, C)``; compared by Euclidean distance after :func:`standardised`.
        labels: ``(n,)``.
        neighbours: how many; fewer where there are fewer films.
    """
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(neighbours, len(features) - 1)).fit(standardised(features))
    return float((labels[found.kneighbors(return_distance=False)] == labels[:, None]).mean())


def chance_agreement(labels: np.ndarray) -> float:
    """What :func:`neighbour_agreement` is for neighbours drawn at random."""
    counts = np.unique(labels, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))


def project(features: np.ndarray, seed: int) -> np.ndarray:
    """``(n, C)`` to ``(n, 2)`` by t-SNE, the same for the same seed. ``n`` at least 5."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(
        1
    ):  # on few hundred films more threads wait for each other: three times as long on two cores
        points: np.ndarray = tsne.fit_transform(standardised(features).astype(np.float32))
    return points


def scatter(points: np.ndarray, labels: Sequence[str], names: Sequence[str], title: str) -> Figure:
    """The map, one colour and shape a label; no axes, since they mean nothing.

    Args:
        points: ``(n, 2)``.
        labels: ``(n,)`` the label of each film.
        names: the labels in the order of the legend, at most six.
        title: what the features come from.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    of_film = np.asarray(labels)
    for name, (color, marker) in zip(names, MARKS, strict=False):
        own = points[of_film == name]
        label = f"{name.replace('_', ' ')} ({len(own)})"
        axes.scatter(own[:, 0], own[:, 1], s=11, color=color, marker=marker, alpha=0.8, linewidths=0, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)
    axes.set_title(title, loc="left")
    figure.legend(loc="outside lower center", ncols=3, handletextpad=0.2, columnspacing=0.8)
    return figure
