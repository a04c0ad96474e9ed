"""Report generation: a small transformer learns to write the reports of a corpus from an encoder's patches.

One example: the film of study 17, whose reference is "there is a small left pleural effusion. heart size is normal.",
and the decoder's "small left effusion. the heart is normal in size.": BLEU-4 near 0, and the finding is right. So read
these numbers beside three others. ``frequent_*``: the most frequent training report, for everybody. ``swapped_*``: each
film with the report that was generated for another; a decoder that looks at its film scores less there.
``finding_f1``: the findings stated, where the corpus knows what its sentences mean.

The decoder, its vocabulary and the reports that it saw come from the training studies alone; the encoder is frozen, or
trained along. Films are seen whole, without crops or flips, for reports name sides.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lingula.batch import Batch
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.data.tokens import Tokens, tokenise_corpus, train_tokenizer
from lingula.evaluation.finetune import Outcome, Tuning, finetune, tuning_batch
from lingula.evaluation.statistics import few_patients, mean_replicates, patient_draws, undefined
from lingula.evaluation.studies import draw_subset, ids_of, labelled_rows, patients_of
from lingula.evaluation.task import Cell, Encoders, Measured, cells_of
from lingula.findings import CHEXBERT, CHEXPERT_COMPETITION
from lingula.metrics.captions import ORDERS, bleu, bleu_counts, cider_d, meteor_exact_stem, rouge_l, sentences, words
from lingula.metrics.clinical import (
    ClinicalError,
    chexbert_labels,
    micro_f1,
    radgraph_f1,
)
from lingula.nn.frozen import encoder_to_use
from lingula.nn.report_decoder import ReportDecoder
from lingula.records import id_hash
from lingula.registry import UserError

LARGE = 1000  # training reports from which on `auto` takes R2Gen's protocol; IU X-ray has 2,069
STORE = 2 << 30  # bytes of a frozen encoder's patches that are kept rather than computed again


@dataclass(frozen=True)
class Protocol:
    """How a decoder is built and trained."""

    tuning: Tuning
    max_tokens: int
    vocabulary: int
    decoder: dict[str, Any]


# R2Gen (Chen et al., EMNLP 2020) has Adam with weight decay 5e-5, 1e-4 for its decoder and 5e-5 for its encoder, batch
# 16, 100 epochs and patience 50 on IU X-ray, a step schedule, clipping, words instead of pieces of words, a transformer
# encoder over the patches and a relational memory; it crops and flips, and chooses by BLEU-4 on validation. It cuts its
# references to 60 (IU X-ray) or 100 words (MIMIC-CXR), and writes <unk> for their rare words. Ours is of its size, with
# one rate for all, AdamW, cosine, and the epoch of the lowest validation loss; references are whole and as written.
PROTOCOLS = {
    "r2gen": Protocol(
        Tuning(learning_rate=1e-4, weight_decay=5e-5, batch_size=16, epochs=100, patience=10),
        max_tokens=100,
        vocabulary=5000,
        decoder={"width": 512, "layers": 3, "heads": 8, "feed_forward": 512, "dropout": 0.1},
    ),
    "small": Protocol(
        Tuning(learning_rate=1e-3, weight_decay=5e-5, batch_size=16, epochs=30, patience=5),
        max_tokens=100,
        vocabulary=2000,
        decoder={"width": 128, "layers": 2, "heads": 4, "feed_forward": 256, "dropout": 0.1},
    ),
}


@dataclass
class ReportGeneration:
    """Train a decoder on the encoder's patches, generate the test reports, and compare them with what was written.

    Args:
        encoder: `frozen`, or `finetuned` together with the decoder.
        fractions: shares of the training patients.
        protocol: `r2gen`, a decoder of R2Gen's size, `small`, for laptops and small corpora, or `auto`: `small` where
            the training split has fewer than 1,000 reports, else `r2gen`.
        beams: number of beams of the beam search.
        max_tokens: length in tokens at which reports are cut, for training and generation (default: the protocol's).
        learning_rate: peak learning rate (default: the protocol's).
        epochs: largest number of epochs (default: the protocol's).
        batch_size: images per step (default: the protocol's).
        patience: epochs without a lower validation loss after which training stops (default: the protocol's).
        examples: number of test reports that are written into the row of results with what was generated. They are
            part of the corpus: mind its licence.
        chexbert: folder with CheXbert's weights; see `lingula.metrics.clinical`.
        radgraph: folder of a RadGraph model.
        radgraph_python: path of a Python interpreter that has the package radgraph (default: this one).
    """

    needs: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[dict[str, bool]] = {
        "bleu_4": True,
        "bleu_3": True,
        "bleu_2": True,
        "bleu_1": True,
        "meteor_exact_stem": True,
        "rouge_l": True,
        "cider": True,
        "finding_f1": True,
    }
    encoder: Literal["frozen", "finetuned"] = "frozen"
    fractions: list[float] = field(default_factory=lambda: [1.0])
    protocol: Literal["auto", "r2gen", "small"] = "auto"
    beams: int = 3
    max_tokens: int | None = None
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None
    examples: int = 0
    chexbert: Path | None = None
    radgraph: Path | None = None
    radgraph_python: Path | None = None

    def __post_init__(self) -> None:
        self._protocol(LARGE)
        cells_of(self.fractions, ())
        if self.beams < 1:
            raise UserError(f"beams must be 1 or more, got {self.beams}")
        if self.max_tokens is not None and self.max_tokens < 3:
            raise UserError(f"max_tokens must be 3 or more, got {self.max_tokens}")
        if self.examples < 0:
            raise UserError(f"examples must be 0 or more, got {self.examples}")
        if self.radgraph_python is not None and self.radgraph is None:
            raise UserError("radgraph_python is the interpreter for --radgraph, which is not given")

    def _protocol(self, reports: int) -> tuple[str, Protocol]:
        """The protocol for this many training reports, its name, and the options that were given instead."""
        name = ("r2gen" if reports >= LARGE else "small") if self.protocol == "auto" else self.protocol
        if name not in PROTOCOLS:
            raise UserError(f"unknown protocol '{name}'; known: auto, {', '.join(PROTOCOLS)}")
        tuning = PROTOCOLS[name].tuning.changed(
            learning_rate=self.learning_rate, epochs=self.epochs, batch_size=self.batch_size, patience=self.patience
        )
        return name, replace(PROTOCOLS[name], tuning=tuning)

    def cells(self, seeds: Sequence[int]) -> list[Cell]:
        return cells_of(self.fractions, seeds)

    def measure(self, model: Encoders, corpus: PreparedCorpus, cells: Sequence[Cell], draws: int) -> Iterator[Measured]:
        """One :class:`Measured` a cell.

        Raises:
            UserError: if a split has no reports, or the weights of a clinical metric are missing.
        """
        with_report = corpus.rows_with_report()
        rows = labelled_rows(corpus, with_report, "a report")
        name, protocol = self._protocol(len(rows["train"]))  # the same for all shares of the data
        patients = patients_of(corpus, rows["train"])
        labels = corpus.labels(corpus.label_names) if corpus.label_names else np.zeros((len(corpus), 1))
        # Weights that cannot be read are found out now rather than after training.
        self._clinical(["no effusion"], ["no effusion"], np.ones((1, 1)), model.device)
        everybody = np.concatenate([rows[split] for split in ("train", "val", "test")])
        stored = None if self.encoder == "finetuned" else stored_patches(model, corpus, everybody)
        meanings = Meanings(corpus)
        written = texts_of(corpus, rows["test"])
        # The first "draw" has every study once: the number itself.
        once_and_draws = np.vstack([np.ones(len(written)), patient_draws(corpus, rows["test"], draws)])
        for cell in cells:
            subset = draw_subset(patients, labels[rows["train"]], cell.fraction, cell.seed)
            train = rows["train"][subset]
            generated, notes = self._generate(model, corpus, {**rows, "train": train}, cell.seed, stored, protocol)
            learnt = texts_of(corpus, train)
            frequent = Counter(learnt).most_common(1)[0][0]  # of equally frequent ones the first
            likeness = Likeness(generated, written, meanings)
            scores = likeness.scores(once_and_draws) | self._clinical(generated, written, once_and_draws, model.device)
            numbers = {name: float(values[0]) for name, values in scores.items()}
            replicates = {name: values[1:] for name, values in scores.items()}
            numbers |= blind("frequent", [frequent] * len(written), written, meanings)
            numbers |= blind("swapped", swapped(generated), written, meanings)
            numbers |= honesty(generated, learnt, meanings)
            notes |= undefined(numbers, meanings.reasons()) | {
                "protocol": name,
                "encoder_mode": self.encoder,
                "beams": self.beams,
                "train_studies": len(train),
                "test_studies": len(written),
                "test_sha256": id_hash(ids_of(corpus, rows["test"])),
                "remarks": few_patients(corpus, rows["test"]),
            }
            if self.examples:
                pairs = zip(written, generated, strict=True)
                notes["examples"] = [{"reference": w, "generated": g} for w, g in list(pairs)[: self.examples]]
            ids = ids_of(corpus, train) if cell.fraction < 1 else None
            yield Measured(numbers, replicates, notes, cell, ids)

    def _generate(
        self,
        model: Encoders,
        corpus: PreparedCorpus,
        rows: dict[str, np.ndarray],
        seed: int,
        stored: Stored | None,
        protocol: Protocol,
    ) -> tuple[list[str], dict[str, Any]]:
        """Train on ``rows["train"]``; the reports of ``rows["test"]``, and how training went."""
        tuning, max_tokens = protocol.tuning, self.max_tokens or protocol.max_tokens
        with tempfile.TemporaryDirectory() as folder:
            learnt = (sentence for report in corpus.reports.of(rows["train"]) for sentence in report)
            tokenizer = train_tokenizer(learnt, Path(folder), protocol.vocabulary)
        tokens = tokenise_corpus(corpus, tokenizer, max_tokens)
        encoder = model.method.image_encoder
        torch.manual_seed(seed)
        reads = len(tokenizer), max_tokens, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        decoder: Any
        if hasattr(model.method, "report_decoder"):
            decoder = model.method.report_decoder(*reads)
        else:
            decoder = ReportDecoder(encoder.width, encoder.grid[0] * encoder.grid[1], *reads, **protocol.decoder)
        writer = Writer(encoder_to_use(encoder, self.encoder == "finetuned"), decoder, stored).to(model.device)

        def loader(split: str, training: bool = False) -> Loader:
            size = tuning_batch(tuning, len(rows[split])) if training else 64
            return _films(model, corpus, rows[split], size, tokens, training, seed)

        val = loader("val")
        outcome: Outcome = finetune(
            writer, loader("train", True), lambda: writer.nats_per_token(val), False, tuning, seed, model.device
        )
        generated: list[str] = []
        with torch.inference_mode():
            for batch in loader("test"):
                ids = decoder.generate(writer.patches(batch), self.beams)
                generated += tokenizer.batch_decode(ids, skip_special_tokens=True)
        test = rows["test"]
        cut = tokens.sentences[test] < tokens.first_sentence[test + 1] - tokens.first_sentence[test]
        notes = {"vocabulary": len(tokenizer), "max_tokens": max_tokens, "longer_references": float(cut.mean())}
        return generated, {**notes, **outcome.notes()}

    def _clinical(
        self, generated: list[str], written: list[str], weights: np.ndarray, device: torch.device
    ) -> dict[str, np.ndarray]:
        """CheXbert's F1 and RadGraph's, where weights were given, ``(draws,)``."""
        found: dict[str, np.ndarray] = {}
        try:
            if self.chexbert is not None:
                truth, told = (chexbert_labels(texts, self.chexbert, device) for texts in (written, generated))
                five = np.isin(CHEXBERT, CHEXPERT_COMPETITION)
                found["chexbert_micro_f1"] = micro_f1(truth, told, weights)
                found["chexbert_5_micro_f1"] = micro_f1(truth[:, five], told[:, five], weights)
            if self.radgraph is not None:
                values = radgraph_f1(generated, written, self.radgraph, self.radgraph_python, device)
                found["radgraph_f1"] = mean_replicates(values, weights)
        except ClinicalError as err:
            raise UserError(str(err)) from err
        return found


# Training -------------------------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """A frozen encoder's patches, computed once.

    Attributes:
        values: ``(n, P, C)`` on the CPU.
        place: ``(len(corpus),)`` int64, where a study's patches are.
    """

    values: Tensor
    place: Tensor


def _films(
    model: Encoders,
    corpus: PreparedCorpus,
    rows: np.ndarray,
    batch_size: int,
    tokens: Tokens | None = None,
    training: bool = False,
    seed: int = 0,
) -> Loader:
    """Whole films, as large as the encoder sees them."""
    size = model.image_size
    return Loader(corpus, rows, size, size, batch_size, tokens, training, seed, model.device)


@torch.inference_mode()
def stored_patches(model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, limit: int = STORE) -> Stored | None:
    """The frozen encoder's patches of these studies; ``None`` where they take more than ``limit`` bytes."""
    encoder = model.method.image_encoder
    if len(rows) * encoder.grid[0] * encoder.grid[1] * encoder.width * 4 > limit:
        return None
    was_training = encoder.training
    encoder.eval()
    values = torch.cat([encoder(batch.image).patches.float().cpu() for batch in _films(model, corpus, rows, 64)])
    encoder.train(was_training)
    place = torch.full((len(corpus),), -1)
    place[torch.from_numpy(rows)] = torch.arange(len(rows))
    return Stored(values, place)


class Writer(nn.Module):
    """An encoder and the decoder that looks at its patches."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, stored: Stored | None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.stored = encoder, decoder, stored

    def patches(self, batch: Batch) -> Tensor:
        """``(B, P, C)``."""
        if self.stored is None:
            patches: Tensor = self.encoder(batch.image).patches
            return patches
        return self.stored.values[self.stored.place[batch.rows.cpu()]].to(batch.images.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean nats of the batch's tokens."""
        nats, tokens = self._nats(batch)
        return {"caption": nats / tokens}

    def after_step(self) -> None:
        """Nothing moves without gradient."""

    def nats_per_token(self, loader: Loader) -> float:
        """Over all tokens of all reports, each predicted from those that were written before it."""
        pairs = [self._nats(batch) for batch in loader]
        return float(sum(nats for nats, _ in pairs) / sum(tokens for _, tokens in pairs))

    def _nats(self, batch: Batch) -> tuple[Tensor, Tensor]:
        reports = batch.reports
        assert reports is not None
        nats = self.decoder(self.patches(batch), reports.token_ids, reports.token_mask)
        return nats.sum(), reports.token_mask[:, 1:].sum()


# Measuring ------------------------------------------------------------------------------------------------------------


def texts_of(corpus: PreparedCorpus, rows: np.ndarray) -> list[str]:
    """The report of each study on one line."""
    return [" ".join(report) for report in corpus.reports.of(rows)]


class Meanings:
    """What the sentences of a corpus affirm, where it knows; a sentence is known by its words.

    Attributes:
        names: of the findings; empty where nothing is known.
        finding: of each known sentence; ``None`` for those that affirm none. A sentence that affirms now this, now that
            is left out.
    """

    def __init__(self, corpus: PreparedCorpus) -> None:
        self.finding: dict[tuple[str, ...], str | None] = {}
        unclear = set()
        known = corpus.knows("meanings") or corpus.knows("findings")
        studies = corpus.batches("sentences", "meanings", "findings") if known else ()
        for study in (study for batch in studies for study in zip(*batch, strict=True)):
            for sentence, meaning, finding in zip(*study, strict=True):
                if meaning is None and finding is None:
                    continue
                key = tuple(word for word in words(sentence) if word != ".")
                if self.finding.setdefault(key, finding) != finding:
                    unclear.add(key)
        for key in unclear:
            del self.finding[key]
        self.names = sorted({finding for finding in self.finding.values() if finding is not None})

    def reasons(self) -> dict[str, str]:
        """Why numbers of this task may be NaN."""
        unknown = "the corpus does not tell what its sentences mean"
        finding = "no known finding, written or generated" if self.names else unknown
        sentence = "nothing was generated" if self.names else unknown
        metrics = ("bleu_4", "cider", "finding_f1")
        return {
            **{f"swapped_{metric}": "a single test report" for metric in metrics},
            **dict.fromkeys(("finding_f1", "frequent_finding_f1"), finding),
            **({} if self.names else {"swapped_finding_f1": unknown}),
            "known_sentences": sentence,
        }

    def affirmed(self, reports: Sequence[Sequence[str]]) -> np.ndarray:
        """``(n, C)`` bool, one column a name: the findings that known sentences of each report affirm."""
        found = np.zeros((len(reports), len(self.names)), dtype=bool)
        for row, report in enumerate(reports):
            for sentence in sentences(report):
                finding = self.finding.get(sentence)
                if finding is not None:
                    found[row, self.names.index(finding)] = True
        return found


class Likeness:
    """Generated reports beside the written ones: what is needed of each study, and the scores of any draw of them."""

    def __init__(self, generated: Sequence[str], written: Sequence[str], meanings: Meanings) -> None:
        self.generated, self.written = [words(text) for text in generated], [words(text) for text in written]
        self.counts = bleu_counts(self.generated, self.written)
        self.cider = cider_d(self.generated, self.written)
        self.truth, self.told = meanings.affirmed(self.written), meanings.affirmed(self.generated)

    def headlines(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The few metrics that a blind baseline is compared by, ``(draws,)`` each; ``weights``: ``(draws, n)``."""
        return {
            "bleu_4": bleu(self.counts, weights)[:, -1],
            "cider": mean_replicates(self.cider, weights),
            "finding_f1": micro_f1(self.truth, self.told, weights),
        }

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """``(draws,)`` of every metric of :attr:`ReportGeneration.higher_is_better`."""
        by_order = bleu(self.counts, weights)
        return {
            **{f"bleu_{order}": by_order[:, order - 1] for order in range(1, ORDERS)},
            "meteor_exact_stem": mean_replicates(meteor_exact_stem(self.generated, self.written), weights),
            "rouge_l": mean_replicates(rouge_l(self.generated, self.written), weights),
            **self.headlines(weights),
        }


def swapped(generated: Sequence[str]) -> list[str]:
    """Every film's report given to another film, half the list away; none where there is one film only."""
    half = len(generated) // 2
    return [*generated[half:], *generated[:half]] if half else []


def blind(name: str, reports: Sequence[str], written: Sequence[str], meanings: Meanings) -> dict[str, float]:
    """``<name>_bleu_4`` and so on, of reports that were not made for these films; NaN where there are none."""
    if not reports:
        return {f"{name}_{metric}": float("nan") for metric in ("bleu_4", "cider", "finding_f1")}
    likeness = Likeness(reports, written, meanings)
    return {f"{name}_{metric}": float(v[0]) for metric, v in likeness.headlines(np.ones((1, len(written)))).items()}


def honesty(generated: Sequence[str], learnt: Sequence[str], meanings: Meanings) -> dict[str, float]:
    """Whether there is more than a few learnt reports in what was generated; shares in [0, 1].

    Returns:
        ``distinct``: different reports among those generated. ``train_copy``: reports that stand word by word in
        training. ``known_sentences``: sentences whose meaning the corpus knows; where they are few, ``finding_f1`` says
        little; NaN where it knows none, or none was generated.
    """
    told = [tuple(words(text)) for text in generated]
    copied = {tuple(words(text)) for text in learnt}
    known = [sentence in meanings.finding for report in told for sentence in sentences(report)]
    return {
        "distinct": len(set(told)) / len(told),
        "train_copy": sum(report in copied for report in told) / len(told),
        "known_sentences": sum(known) / len(known) if known and meanings.names else float("nan"),
    }
