"""Maps of embeddings, and the clusters of sentences. Floor 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lingula.pages.figures import draw
from lingula.pages.images import findings_of, loader_over

if TYPE_CHECKING:
    from markupsafe import Markup

    from lingula.data.prepared import PreparedCorpus
    from lingula.data.tokens import Tokens
    from lingula.runs.model import Model


BATCHES = 4  # of sentences that are clustered together


class Map(NamedTuple):
    """A t-SNE map and its share of nearest neighbours with the same label; ``films`` on it, and what chance gives."""

    svg: Markup | None
    title: str
    agreement: float
    chance: float
    films: int


def tsne_maps(model: Model, corpus: PreparedCorpus, rows: np.ndarray, most: int, seed: int) -> list[Map]:
    """The trained features and those of random weights, on the same films; nothing where too few have one label."""
    from lingula.evaluation.studies import film_loader
    from lingula.plots.tsne import chance_agreement, neighbour_agreement, project, scatter, singly_labelled
    from lingula.runs.measure import recalibrate
    from lingula.runs.model import fresh
    from lingula.tasks.classification import extract_features

    classes = {name for group in corpus.label_groups.values() for name in group}  # of these, "normal" is one as well
    groups = [name for name in corpus.label_names if name in classes or name in findings_of(corpus)]
    if not groups:
        return []
    films, label, columns = singly_labelled(corpus.labels(groups, rows))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(films))[:most])
    films, label = films[drawn], label[drawn]
    if len(films) < 5 or len(np.unique(label)) < 2:
        return []
    names = [groups[column] for column in columns]
    of_film = [groups[column] for column in label]
    untrained = fresh(model, seed)
    recalibrate(untrained, corpus)
    maps = []
    for title, encoder in ((model.made["method"], model), ("random weights", untrained)):
        features = extract_features(encoder.method.image_encoder, film_loader(encoder, corpus, rows[films]))
        svg = draw(f"t-SNE of image features, {title}", scatter, project(features, seed), of_film, names, title)
        maps.append(Map(svg, title, neighbour_agreement(features, label), chance_agreement(label), len(films)))
    return maps


class Clustered(NamedTuple):
    """``shown``: the largest of ``clusters`` over ``sentences`` of ``films``; purity of all, and of one cluster."""

    shown: list[Any]
    clusters: int
    sentences: int
    films: int
    purity: float
    base: float


def cluster_words(
    model: Model, corpus: PreparedCorpus, tokens: Tokens | None, rows: np.ndarray, show: int, seed: int
) -> Clustered | None:
    """The method's own clusters of the cross-modal representations, in words; ``None`` where it makes none."""
    import torch

    from lingula.losses.cosine import cosine
    from lingula.plots.clusters import largest_clusters, purity

    method = model.method
    if show == 0 or tokens is None or not hasattr(method, "find_clusters"):
        return None
    batch_size = model.made["plan"]["batch_size"]
    some = np.sort(np.random.default_rng(seed).permutation(rows)[: BATCHES * batch_size])
    if tokens.sentences[some].sum() < 4:
        return None
    made, keys, reports = [], [], []
    with torch.inference_mode():
        for batch in loader_over(model, corpus, tokens, some, batch_size):
            assert batch.reports is not None
            patches, sentences = method.encode_image(batch.image).patches, method.encode_text(batch.reports).sentences
            made.append(method.cross_attention(patches, sentences, batch.reports).image_to_report.float())
            keys.append(batch.reports.sentence_key)
            reports.append(batch.rows[batch.reports.report_of_sentence])
        cross_modal, key, report_of = torch.cat(made), torch.cat(keys), torch.cat(reports).cpu().numpy()
        centres, assignment, exist = method.find_clusters(cross_modal, key, seed)
        if exist is not None and not bool(exist):
            return None
        similarity = cosine(cross_modal, centres).gather(1, assignment[:, None])[:, 0].cpu().numpy()
    cluster = assignment.cpu().numpy()
    places = (key.cpu().numpy() - tokens.first_sentence[report_of]).tolist()
    texts, meanings = (
        [own[place] for own, place in zip(corpus.lists(column, report_of), places, strict=True)]
        for column in ("sentences", "meanings")
    )
    shown = largest_clusters(similarity, cluster, texts, meanings, report_of, show)
    return Clustered(shown, len(np.unique(cluster)), len(texts), len(some), *purity(cluster, meanings))
