"""From a corpus reader to a prepared corpus: rows checked, splits settled, films decoded, all of it written. Floor 2.

What it writes is described, and read, in :mod:`lingula.data.prepared`. The studies go through it one by one, and wait
on disk (:mod:`lingula.data.spool`), so that memory does not limit how many there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lingula import __version__
from lingula.data.bad_rows import (
    Duplicates,
    LeftOutRows,
    log_left_out,
    log_shared,
    rows_listed_once,
    stop_or_log,
    where_of,
    write_left_out,
)
from lingula.data.films import Film, Films, Log, check_same, write_text, writing
from lingula.data.image import Geometry
from lingula.data.label_cells import LABEL_VALUES
from lingula.data.layout import BATCH, FORMAT, LABEL, TableWriter, schemas, split_column
from lingula.data.prepared import PreparedCorpus, read_meta
from lingula.data.reader import Corpus, Stated, canonical_json
from lingula.data.reports import say_what_was_read, start_reading, what_was_read
from lingula.data.splits import split_of_rows
from lingula.data.spool import Spool, beside
from lingula.data.study import SPLITS, LeftOut, Study
from lingula.registry import UserError

RULES = 2  # number of the rules by which rows become an index and pixels: part of the fingerprint, not of the format
BOX_SLACK = 1.0  # original pixels by which annotators' boxes may overshoot their film; they are clipped to it


def prepare(
    corpus: Corpus,
    out: Path,
    size: int = 256,
    workers: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_bad_rows: bool = False,
    duplicates: Duplicates = "refuse",
    log: Log = print,
) -> PreparedCorpus:
    """Read a corpus once: check its rows, settle its splits, decode its films, and write all of it to ``out``.

    Splits that the corpus gives are kept. Studies without one go where another study of their patient stands, else by a
    hash of ``(seed, patient_id)``, so that neither the order of the rows nor the other patients matter; they are drawn
    into train and into those of val and test that the corpus gives nowhere, so that an official test set never grows.

    A row is bad if its film is missing or cannot be read, if its report is empty, if a box lies outside its film, if a
    mask has not its film's size, or if it lists a study, or an image of another patient, that an earlier row lists.
    Bad rows are counted by cause.

    A preparation that was interrupted goes on where it stopped when called again; one that is whole is opened. Whether
    bad rows are skipped does not count as a difference, and neither does the content of the films.

    Args:
        corpus: the reader.
        out: folder to write; made if need be.
        size: side of the prepared squares, pixels.
        workers: processes that decode; all cores if None, none besides this one if 0.
        val_fraction: share of the patients without a split that go to val.
        test_fraction: share of the patients without a split that go to test.
        seed: of that draw.
        skip_bad_rows: leave bad rows out and say so, instead of stopping at them.
        duplicates: which row to keep of those that list one study, or one image under several patients; by default the
            later ones are bad rows.
        log: takes one line of text.
    Raises:
        UserError: for bad rows, a patient in two splits, no studies, and a folder that holds another preparation.
    """
    out = Path(out)
    if size < 1:
        raise UserError(f"size must be at least 1 pixel, got {size}")
    if val_fraction < 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
        raise UserError(f"val_fraction {val_fraction} and test_fraction {test_fraction} must leave a share for train")
    settings = {
        "format": RULES,
        "name": corpus.name,
        "size": size,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "source": corpus.fingerprint(),
    } | ({"duplicates": duplicates} if duplicates != "refuse" else {})
    meta = read_meta(out)
    if meta is not None:
        check_same(meta["settings"], settings, f"{out} already holds another prepared corpus")
        log(f"{corpus.name}: already prepared in {out}, {sum(meta['studies'].values())} studies; nothing to do")
        shutil.rmtree(out / "unfinished", ignore_errors=True)
        return PreparedCorpus.open(out)

    for remark in getattr(corpus, "remarks", ()):
        log(f"{corpus.name}: {remark}")
    reader = start_reading(corpus)
    with writing(out):
        spool = Spool(beside(out), seed)
    kept, left_out, official = _checked(corpus, spool, skip_bad_rows, duplicates, log)
    if not len(kept):
        say_what_was_read(corpus.name, reader, log)
    splits = split_of_rows(corpus.name, spool, kept, official, {"test": test_fraction, "val": val_fraction}, log)
    _check_any(corpus.name, kept, left_out)

    rows = hashlib.sha256(spool.ids[kept].tobytes() + spool.masks[kept].tobytes()).hexdigest()
    work = Films.open_or_make(out, settings, rows, spool.masks[kept], size, log)

    def films(places: np.ndarray) -> Iterator[Film]:
        return (Film(study.image, tuple(study.masks.values())) for study in spool.read(kept[places].tolist()))

    problems = work.decode(films, workers, spool.unpicklable, corpus.name)
    undecoded = _undecoded(spool, kept, work, problems)
    stop_or_log(corpus.name, undecoded, skip_bad_rows, log)
    left_out.append(undecoded)
    sound = np.setdiff1d(np.arange(len(kept)), np.array(sorted(problems), dtype=np.int64), assume_unique=True)
    _check_any(corpus.name, sound, left_out)

    groups: dict[str, list[str]] = dict(getattr(corpus, "label_groups", None) or {})
    written_of = spool.label_names
    if len(sound) < len(spool):  # those of the studies that are left
        written_of = dict.fromkeys(name for study in spool.read(kept[sound].tolist()) for name in study.labels)
    names = list(written_of | dict.fromkeys(name for group in groups.values() for name in group))
    stated: Sequence[Stated] = getattr(corpus, "stated", ())
    with writing(out):
        written = _write_tables(out, spool, kept[sound], splits[sound], work.geometry_of(sound), names)
        write_left_out(out / "left_out.csv", left_out)
    work.finish(sound)
    patients = spool.patients[kept[sound]]
    of_split = {split: splits[sound] == code for code, split in enumerate(SPLITS)}
    found = written.present | {"studies": len(sound), "patients": len(np.unique(patients))}
    beside_stated = [{**dataclasses.asdict(line), "found": found.get(line.what, 0)} for line in stated]
    why = _kinds(left_out)
    meta = {
        "format": FORMAT,
        "name": corpus.name,
        "licence": corpus.licence,
        "size": size,
        "studies": {split: int(own.sum()) for split, own in of_split.items()},
        "patients": {split: len(np.unique(patients[own])) for split, own in of_split.items()},
        "label_names": names,
        "label_groups": groups,
        "uncertain_as": dict(getattr(corpus, "uncertain_as", None) or {}),
        "unknown_as": dict(getattr(corpus, "unknown_as", None) or {}),
        "fingerprint": hashlib.sha256(canonical_json(settings).encode()).hexdigest(),
        "stated": beside_stated,
        "settings": settings,
        "index_sha256": written.digest,
        **what_was_read(reader),
        "left_out": dict(sorted(why.items())),
        "lingula": __version__,
    }
    write_text(out / "corpus.json", json.dumps(meta, indent=2) + "\n")
    shutil.rmtree(out / "unfinished", ignore_errors=True)
    counts = ", ".join(f"{meta['studies'][split]} {split}" for split in SPLITS)
    log(f"{corpus.name}: prepared {len(sound)} studies ({counts}) in {out}; left out {why.total()}")
    for line in beside_stated:
        log(f"{corpus.name}: {_beside_stated(line, why)}")
    for remark in _empty_splits(meta, official):
        log(f"{corpus.name}: {remark}")
    say_what_was_read(corpus.name, reader, log)
    spool.close()
    return PreparedCorpus.open(out)


# Rows -----------------------------------------------------------------------------------------------------------------


def _checked(
    corpus: Corpus, spool: Spool, skip_bad_rows: bool, duplicates: Duplicates, log: Log
) -> tuple[np.ndarray, list[LeftOutRows], set[str]]:
    """Everything that can be known without decoding a film. The sound studies go into the spool.

    Returns:
        the positions of those that are kept; other rows; and the splits that any row has, for a split whose films are
        all missing is still the corpus's own: none is drawn in its place.
    """
    bad, unwanted = LeftOutRows(spool.folder), LeftOutRows(spool.folder)
    official: set[str] = set()
    for row in corpus.studies():
        if isinstance(row, LeftOut):
            (bad if row.bad else unwanted).add(row)
            continue
        if row.split is not None:
            official.add(row.split)
        reason = _problem(row)
        if reason:
            bad.add(LeftOut(where_of(row), reason))
        else:
            spool.add(row)
    kept, twice = rows_listed_once(spool, duplicates)
    (bad if duplicates == "refuse" else unwanted).extend(twice)
    log_shared(corpus.name, spool, kept, log)
    log_left_out(corpus.name, unwanted, log)
    stop_or_log(corpus.name, bad, skip_bad_rows, log)
    return kept, [unwanted, bad], official


def _undecoded(spool: Spool, kept: np.ndarray, work: Films, problems: dict[int, str]) -> LeftOutRows:
    """The rows whose film or mask cannot be read, or whose boxes lie outside it; ``problems`` gains the latter."""
    read = np.ones(len(kept), dtype=bool)
    read[list(problems)] = False
    boxed = np.flatnonzero(spool.boxed[kept] & read)
    geometry = work.geometry_of(boxed)
    for row, (place, study) in enumerate(zip(boxed.tolist(), spool.read(kept[boxed].tolist()), strict=True)):
        reason = _box_problem(study, geometry(row))
        if reason:
            problems[place] = reason
    rows = LeftOutRows(spool.folder)
    places = sorted(problems)
    for place, study in zip(places, spool.read(kept[places].tolist()), strict=True):
        rows.add(LeftOut(where_of(study), problems[place]))
    return rows


def _problem(study: Study) -> str:
    """Why a study is bad, as far as that shows before its film is decoded; empty where it is sound."""
    if study.split is not None and study.split not in SPLITS:
        return f"unknown split: '{study.split}', expected one of {', '.join(SPLITS)}"
    if isinstance(study.image, Path) and not os.path.isfile(study.image):  # noqa: PTH113 - no error for a long name
        return f"missing image file: {study.image}"
    for name, mask in study.masks.items():
        if isinstance(mask, Path) and not os.path.isfile(mask):  # noqa: PTH113
            return f"missing mask file: {name}: {mask}"
    if any(not sentence.text.strip() for sentence in study.sentences):
        return "empty sentence"
    for name, value in study.labels.items():
        if value not in LABEL_VALUES and not np.isnan(value):
            return f"unknown label value: {name} is {value:g}, expected 0, 1, -1 or NaN"
    for name, (x0, y0, x1, y1) in _boxes(study):
        if not (x0 < x1 and y0 < y1):
            return f"empty box: {name} at {x0:g}, {y0:g}, {x1:g}, {y1:g}"
    return ""


def _boxes(study: Study) -> list[tuple[str, tuple[float, float, float, float]]]:
    """All boxes of a study, its sentences' included; original pixels."""
    own = [(box.name, (box.x0, box.y0, box.x1, box.y1)) for box in study.boxes]
    return own + [("box of a sentence", sentence.box) for sentence in study.sentences if sentence.box is not None]


def _box_problem(study: Study, geometry: Geometry) -> str:
    for name, (x0, y0, x1, y1) in _boxes(study):
        if (
            min(x0, y0) < -BOX_SLACK
            or x1 > geometry.width + BOX_SLACK
            or y1 > geometry.height + BOX_SLACK
            or x0 >= geometry.width
            or min(x1, y1) <= 0
            or y0 >= geometry.height
        ):
            return (
                f"box outside its image: {name} at {x0:g}, {y0:g}, {x1:g}, {y1:g} in a film of {geometry.width} by "
                f"{geometry.height} pixels"
            )
    return ""


def _check_any(name: str, rows: np.ndarray, left_out: list[LeftOutRows]) -> None:
    if not len(rows):
        raise UserError(f"{name}: no studies{_why(_kinds(left_out))}")


def _kinds(left_out: list[LeftOutRows]) -> Counter[str]:
    """How many rows were left out for each kind of reason."""
    return sum((rows.counts for rows in left_out), Counter())


def _why(kinds: Counter[str]) -> str:
    """``; left out: 3 missing image file, 1 lateral`` or nothing."""
    return "; left out: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) if kinds else ""


def _beside_stated(line: dict[str, Any], left_out: Counter[str]) -> str:
    """The two beside each other, and what explains the difference."""
    found, what, where, count = (line[key] for key in ("found", "what", "where", "count"))
    difference = found - count
    if not difference:
        return f"{found:,} {what}, as {where} states"
    note = f"; {line['note']}" if line["note"] else ""
    return (
        f"{found:,} {what}; {where} states {count:,}: {abs(difference):,} "
        f"{'more' if difference > 0 else 'fewer'}{_why(left_out)}{note}"
    )


def _empty_splits(meta: dict[str, Any], official: set[str]) -> list[str]:
    """Which splits have no study, why, and what to do about it: a line a reason."""
    patients, empty = sum(meta["patients"].values()), defaultdict(list)
    for split in [split for split in SPLITS if not meta["studies"][split]]:
        if official:
            why = "the corpus has splits of its own, without a usable study there"
        elif meta["settings"].get(f"{split}_fraction") == 0:
            why = f"--{split}_fraction is 0"
        elif patients == 1:
            why = "there is one patient; add others"
        else:
            why = f"{patients} patients are too few for three splits; add others, or give --val_fraction 0"
        empty[why].append(split)
    use = {"train": "pretrain learns from train", "val": "heads are chosen on val", "test": "evaluate measures on test"}
    return [
        f"note: {' and '.join(splits)} {'is' if len(splits) == 1 else 'are'} empty: {why} "
        f"({', '.join(use[split] for split in splits)})"
        for why, splits in empty.items()
    ]


# Files ----------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Written:
    """What was learnt while the tables were written.

    Attributes:
        digest: SHA-256 of all rows.
        present: studies in which each label is present.
    """

    digest: str
    present: dict[str, int]


def _write_tables(
    out: Path,
    spool: Spool,
    kept: np.ndarray,
    splits: np.ndarray,
    geometry: Callable[[int], Geometry],
    label_names: list[str],
) -> Written:
    """The four tables, some studies at a time."""
    writers = {name: TableWriter(out, name, schema) for name, schema in schemas(label_names).items()}
    present: Counter[str] = Counter()
    for start in range(0, len(kept), BATCH):
        positions = kept[start : start + BATCH].tolist()
        studies = list(spool.read(positions))
        geometries = [geometry(row) for row in range(start, start + len(studies))]
        tables = {
            "studies": _study_columns(studies, splits[start : start + BATCH], label_names),
            "images": _image_columns(studies, geometries, start),
            "boxes": _box_columns(studies, geometries, start),
            "masks": _mask_columns(studies, start),
        }
        for name, columns in tables.items():
            writers[name].write(columns)
        present.update(name for study in studies for name, value in study.labels.items() if value == 1)
    digest = hashlib.sha256()
    for writer in writers.values():
        digest.update(writer.finish())
    return Written(digest.hexdigest(), dict(present))


def _study_columns(studies: list[Study], splits: np.ndarray, label_names: list[str]) -> dict[str, Any]:
    nothing = [None] * len(studies)
    return {
        "study_id": [study.study_id for study in studies],
        "patient_id": [study.patient_id for study in studies],
        "split": split_column([SPLITS[code] for code in splits.tolist()]),
        "date": nothing,
        "prior": nothing,
        "sentences": [[sentence.text for sentence in study.sentences] for study in studies],
        "meanings": [[sentence.meaning for sentence in study.sentences] for study in studies],
        "findings": [[sentence.finding for sentence in study.sentences] for study in studies],
        "content": [study.content for study in studies],
        "row": [study.row for study in studies],
    } | {LABEL + name: [study.labels.get(name, float("nan")) for study in studies] for name in label_names}


def _image_columns(studies: list[Study], geometries: list[Geometry], start: int) -> dict[str, Any]:
    both = list(zip(studies, geometries, strict=True))
    return {
        "study": range(start, start + len(studies)),
        "projection": [study.view for study in studies],
        "order": [0] * len(studies),
        "image": [str(study.image) if isinstance(study.image, Path) else "" for study in studies],
        "height": [geometry.height for geometry in geometries],
        "width": [geometry.width for geometry in geometries],
        "scale": [geometry.scale for geometry in geometries],
        "pad_x": [geometry.pad_x for geometry in geometries],
        "pad_y": [geometry.pad_y for geometry in geometries],
        "annotated": [sorted({*study.annotated, *(box.name for box in study.boxes)}) for study in studies],
        "sentence_boxes": [
            [None if sentence.box is None else _prepared_box(sentence.box, geometry) for sentence in study.sentences]
            for study, geometry in both
        ],
    }


def _box_columns(studies: list[Study], geometries: list[Geometry], start: int) -> dict[str, Any]:
    rows = [
        (row, box.name, *_prepared_box((box.x0, box.y0, box.x1, box.y1), geometry))
        for row, (study, geometry) in enumerate(zip(studies, geometries, strict=True), start)
        for box in study.boxes
    ]
    return {name: [row[place] for row in rows] for place, name in enumerate(("row", "name", "x0", "y0", "x1", "y1"))}


def _mask_columns(studies: list[Study], start: int) -> dict[str, Any]:
    rows = [(row, name) for row, study in enumerate(studies, start) for name in study.masks]
    return {"row": [row for row, _ in rows], "name": [name for _, name in rows]}


def _prepared_box(box: tuple[float, float, float, float], geometry: Geometry) -> list[float]:
    """A box in prepared pixels, clipped to its film."""
    clipped = np.clip(box, 0, [geometry.width, geometry.height] * 2)
    return [float(value) for value in geometry.to_prepared(clipped)]
