"""Zero-shot classification: a label is read from the similarity of a film and of sentences that name it.

One example: film 17 is nearer to "there is pleural effusion." than to "there is no pleural effusion." by 0.12: its
score for that label. No label of the corpus is seen in doing so, and no other test film.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lingula.batch import Reports
from lingula.data.collate import collate_reports
from lingula.data.prepared import PreparedCorpus
from lingula.data.sentences import report_sentences
from lingula.data.tokens import tokenise
from lingula.evaluation.labels import Labels
from lingula.evaluation.scores import has_own_score
from lingula.evaluation.statistics import few_patients, patient_draws, undefined
from lingula.evaluation.studies import film_loader, ids_of, split_rows
from lingula.evaluation.task import Cell, Encoders, Measured
from lingula.findings import is_finding, prompts_of
from lingula.metrics.accuracy import accuracy
from lingula.metrics.auroc import macro_auroc
from lingula.records import id_hash
from lingula.registry import UserError, nearest

NO_WORDS = "the training reports use the words of no label"
Prompts = dict[str, list[str]]  # {"present": sentences, "absent": sentences} of a label
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")  # no spaces in Chinese: a letter
# Words of a prompt that name no finding: whether reports use them says nothing of the label.
GRAMMAR = frozenset(
    _WORD.findall("a an and another are but evidence for in is no not of on or other seen the there this with")
)


@dataclass
class ZeroShot:
    """AUROC and accuracy of the similarity of images and prompts; no label is seen.

    A label's score is the cosine of the image and the mean of its prompts, less that of the image and the mean of the
    prompts that deny it; for classes that exclude each other, the first alone. (GLoRIA's official code scales by the
    other test images, so that an image's score depends on its neighbours; ours does not.)

    Beside it stands ``auroc_one_direction``: the AUROC of the mean of all labels' scores, taken as the score of each.
    It knows no label, only what the prompts have in common, such as what a "no" does; an AUROC that does not exceed it
    shows no ability to tell labels apart. Labels such as "No Finding" enter it with the opposite sign.

    ``labels_never_read`` of a row names the labels that the training reports cannot have taught: each of their prompts
    has a word that no training report uses. ``auroc_words_read`` is the macro AUROC of the other labels. Both need the
    corpus of the training; where it is not at hand they are left out, and a remark says so.

    Args:
        labels: label names, or the name of one group of exclusive classes; all labels if empty.
        prompts: YAML file, `{label: [sentence, ...]}` or `{label: {present: [...], absent: [...]}}`; for labels that it
            does not name, and by default, "there is {label}." and "there is no {label}.", or, for a label such as
            "No Finding", what reports say of a normal chest.
        label_policy: `corpus` takes uncertain and unknown labels for what the corpus's own protocol does, where it has
            one; `unknown` leaves them out.
        split: `val` or `test`.
    """

    needs: ClassVar[tuple[str, ...]] = ("encode_text",)
    higher_is_better: ClassVar[dict[str, bool]] = {"auroc": True, "accuracy": True, "auroc_words_read": True}
    version: ClassVar[int] = 2  # default prompts by what a label means; in 1, the same two templates for all

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
        rows = split_rows(corpus, self.split, labels.known, "labels")
        labels.check_test(corpus, rows, self.split)
        given = {} if self.prompts is None else prompts_in(self.prompts, labels.names)
        prompts = complete(given, labels.names, corpus.name)
        texts = training_texts(model, corpus)
        unread = None if texts is None else never_read(texts, prompts)
        remarks = few_patients(corpus, rows) + labels.few(rows)
        remarks += [*remarks_on_prompts(self.prompts, given, prompts), *remarks_on_words(model, unread, prompts)]
        sign = np.array([1 if is_finding(name, corpus.name) else -1 for name in labels.names], dtype=np.float32)
        targets, weights = labels.targets[rows], patient_draws(corpus, rows, draws)
        for _ in cells:
            scores = score_films(model, corpus, rows, prompts, labels.exclusive)
            for_all = sign * (sign * scores).mean(1, keepdims=True)
            numbers = {
                "auroc": float(macro_auroc(targets, scores)[0]),
                "auroc_one_direction": float(macro_auroc(targets, for_all)[0]),
                "accuracy": float(accuracy(targets, scores, labels.exclusive)[0]),
            }
            replicates = {
                "auroc": macro_auroc(targets, scores, weights),
                "accuracy": accuracy(targets, scores, labels.exclusive, weights),
            }
            if unread is not None:
                of_read = np.where([name not in unread for name in labels.names], targets, np.nan)
                numbers["auroc_words_read"] = float(macro_auroc(of_read, scores)[0])
                replicates["auroc_words_read"] = macro_auroc(of_read, scores, weights)
            notes = {
                "labels": labels.names,
                "prompts": prompts,
                "labels_never_read": unread,
                **undefined(numbers, {"auroc_words_read": NO_WORDS} if unread == labels.names else {}),
                "remarks": remarks,
                "test_studies": len(rows),
                "test_sha256": id_hash(ids_of(corpus, rows)),
            }
            yield Measured(numbers, replicates, notes)


# Prompts --------------------------------------------------------------------------------------------------------------


def read_prompts(path: Path | None, labels: Sequence[str], corpus: str = "") -> dict[str, Prompts]:
    """``{label: {"present": [...], "absent": [...]}}``: those of a YAML file, and the default ones of other labels.

    Args:
        path: the file; the default prompts of all labels if None.
        labels: the labels that are asked for.
        corpus: name of the corpus that has them.
    Raises:
        UserError: as :func:`prompts_in` and :func:`complete`.
    """
    return complete({} if path is None else prompts_in(path, labels), labels, corpus)


def complete(given: Mapping[str, Prompts], labels: Sequence[str], corpus: str = "") -> dict[str, Prompts]:
    """The prompts of all labels, in their order: those that are given, else those of :mod:`lingula.findings`.

    Raises:
        UserError: for labels whose names do not tell what a report would say of them.
    """
    prompts, untold = {}, []
    for label in labels:
        default = prompts_of(label, corpus)
        if label in given:
            prompts[label] = given[label]
        elif default is not None:
            prompts[label] = {side: list(sentences) for side, sentences in default._asdict().items()}
        else:
            untold.append(label)
    if untold:
        sides = '{present: ["a sentence that says it."], absent: ["a sentence that denies it."]}'
        yaml = ", ".join(f"{json.dumps(label, ensure_ascii=False)}: {sides}" for label in untold)
        named = ", ".join(f"'{label}'" for label in untold)
        raise UserError(
            f"the name does not tell what reports say of label {named}; write prompts to a file and give it with "
            f"--prompts FILE: {{{yaml}}}"
        )
    return prompts


def prompts_in(path: Path, labels: Sequence[str]) -> dict[str, Prompts]:
    """The prompts of a YAML file.

    Raises:
        UserError: if the file is missing or no such table, names a label that was not asked for, or has a sentence that
            says both that a label is present and that it is absent.
    """
    import yaml

    try:
        written: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise UserError(f"cannot read the prompts in {path}: {getattr(err, 'strerror', None) or err}") from err
    if not isinstance(written, dict):
        raise UserError(f"{path} must be a table of labels and prompts, got {type(written).__name__}")
    for name in written:
        if name not in labels:
            raise UserError(f"{path}: '{name}' is not a label of this corpus{nearest(str(name), labels)}")
    return {label: _prompts_of(of, label, path) for label, of in written.items()}


def _prompts_of(given: Any, label: str, path: Path) -> dict[str, list[str]]:
    given = {"present": given} if isinstance(given, list) else given
    if isinstance(given, dict) and set(given) <= {"present", "absent"} and given.get("present"):
        prompts = {side: list(given.get(side) or ()) for side in ("present", "absent")}
        if all(isinstance(sentence, str) for of in prompts.values() for sentence in of):
            denied = {_plain(sentence) for sentence in prompts["absent"]}
            for sentence in prompts["present"]:
                if _plain(sentence) in denied:
                    raise UserError(f"{path}: label '{label}' has '{sentence}' both as present and as absent")
            return prompts
    raise UserError(f"{path}: label '{label}' needs a list of sentences, or present: and absent: with one each")


def _plain(sentence: str) -> str:
    return " ".join(sentence.lower().split()).rstrip(".")


def remarks_on_prompts(path: Path | None, given: Mapping[str, Prompts], prompts: Mapping[str, Prompts]) -> list[str]:
    """Which labels a prompt file leaves out."""
    others = [label for label in prompts if label not in given]
    return [f"{path} has no prompts for {', '.join(others)}: the default ones are used"] if path and others else []


# Words that were read -------------------------------------------------------------------------------------------------


def training_texts(model: Encoders, corpus: PreparedCorpus) -> Iterable[str] | None:
    """The sentences of the reports that a model was trained on.

    Args:
        model: the encoders.
        corpus: the corpus that is at hand.
    Returns:
        None where the corpus of the training is not in its folder, or another one is.
    """
    trained_on = model.trained_on
    if trained_on.get("fingerprint") == corpus.fingerprint:
        return corpus.training_texts()
    try:
        own = PreparedCorpus.open(trained_on["folder"])
    except (KeyError, UserError):  # shards too: of these the first ones only would be read
        return None
    return own.training_texts() if own.fingerprint == trained_on.get("fingerprint") else None


def never_read(texts: Iterable[str], prompts: Mapping[str, Prompts]) -> list[str]:
    """The labels each of whose ``present`` prompts has a word that no text uses; :data:`GRAMMAR` does not count.

    Args:
        texts: sentences, in any case.
        prompts: by label.
    """
    words = {label: [_words(prompt) - GRAMMAR for prompt in of["present"]] for label, of in prompts.items()}
    unused = set().union(*(of_prompt for of_label in words.values() for of_prompt in of_label))
    for text in texts:
        unused -= _words(text)
        if not unused:
            break
    return [label for label, of_label in words.items() if all(of_prompt & unused for of_prompt in of_label)]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def remarks_on_words(model: Encoders, unread: Sequence[str] | None, prompts: Mapping[str, Prompts]) -> list[str]:
    """What to say of the labels of :func:`never_read`, None where that is not known."""
    if unread is None:
        where = model.trained_on.get("folder") or "a place that is not known"
        return [f"not checked whether the training reports use the words of the labels: their corpus is not at {where}"]
    if not unread:
        return []
    named = f"label{'s' * (len(unread) > 1)} {', '.join(unread)}"
    others = "auroc_words_read is the mean over the other labels"
    if len(unread) == len(prompts):
        others = f"they were asked for as '{prompts[unread[0]]['present'][0]}'"
    return [f"the training reports never use the words of {named}; {others}; --prompts FILE gives other sentences"]


# Scores ---------------------------------------------------------------------------------------------------------------


def score_films(
    model: Encoders,
    corpus: PreparedCorpus,
    rows: np.ndarray,
    prompts: dict[str, Prompts],
    exclusive: bool,
) -> np.ndarray:
    """``(n, C)`` scores; each film's is a function of that film and the prompts alone.

    Raises:
        UserError: for a prompt of one word.
    """
    if has_own_score(model.method):
        return own_scores(model, corpus, rows, prompts, exclusive)
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
            film = F.normalize(model.method.encode_image(batch.image).embedding.float(), dim=-1)
            scores.append((film @ present.T).cpu())
    found: np.ndarray = torch.cat(scores).numpy()
    return found


@torch.inference_mode()
def own_scores(
    model: Encoders, corpus: PreparedCorpus, rows: np.ndarray, prompts: dict[str, Prompts], exclusive: bool
) -> np.ndarray:
    """``(n, C)``: for each label the mean of the method's own scores of its prompts, less that of those that deny it.

    Raises:
        UserError: for a prompt of one word.
    """
    method = model.method
    method.eval()
    signs = {"present": 1.0} if exclusive else {"present": 1.0, "absent": -1.0}
    read = [
        [(sign, method.encode_text(read_as_reports(model, of[side]))) for side, sign in signs.items() if of[side]]
        for of in prompts.values()
    ]
    scores = []
    for batch in film_loader(model, corpus, rows):
        images = method.encode_image(batch.image)
        of_label = [sum(sign * method.score(images, text).float().mean(1) for sign, text in sides) for sides in read]
        scores.append(torch.stack(of_label, dim=1).cpu())  # type: ignore[arg-type]  # sum() may be 0 of no side
    found: np.ndarray = torch.cat(scores).numpy()
    return found


def embed_prompts(model: Encoders, prompts: Sequence[str]) -> Tensor:
    """``(D,)``: the mean of the prompts' global embeddings, each and all of length one."""
    encoding = model.method.encode_text(read_as_reports(model, prompts))
    return F.normalize(F.normalize(encoding.embedding.float(), dim=-1).mean(0), dim=-1)


def read_as_reports(model: Encoders, prompts: Sequence[str]) -> Reports:
    """Prompts, each tokenised as a report of its own.

    Raises:
        UserError: for a prompt of one word.
    """
    split = [report_sentences(prompt) for prompt in prompts]
    for prompt, sentences in zip(prompts, split, strict=True):
        if not sentences:
            raise UserError(f"a prompt needs two words or more, got '{prompt}'")
    tokens = tokenise(split, model.tokenizer, model.method.text_encoder.max_tokens)
    return collate_reports(tokens, np.arange(len(split))).to(model.device)
