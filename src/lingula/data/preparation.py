"""From a corpus reader to a prepared corpus: rows checked, splits settled, films decoded, all of it written. Floor 2.

What it writes is described, and read, in :mod:`lingula.data.prepared`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula import __version__
from lingula.data.bad_rows import Duplicates, kind_of, listed_once, log_left_out, log_shared, stop_or_log, where_of
from lingula.data.films import Film, Films, Log, check_same, write_text
from lingula.data.image import Geometry
from lingula.data.label_cells import LABEL_VALUES
from lingula.data.prepared import FORMAT, LABEL, PreparedCorpus, read_meta
from lingula.data.reader import Corpus, Stated, canonical_json
from lingula.data.reports import say_what_was_read, start_reading, what_was_read
from lingula.data.study import SPLITS, LeftOut, Study
from lingula.registry import UserError

if TYPE_CHECKING:
    import pyarrow as pa

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
        "format": FORMAT,
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
    studies, left_out, official = _checked(corpus, skip_bad_rows, duplicates, log)
    if not studies:
        say_what_was_read(corpus.name, reader, log)
    splits = _splits(corpus.name, studies, official, val_fraction, test_fraction, seed, log)
    _check_any(corpus.name, splits, left_out)

    films = [Film(study.image, tuple(study.masks.values())) for study in studies]
    mask_counts = [len(film.masks) for film in films]
    work = Films.open_or_make(out, settings, [study.study_id for study in studies], mask_counts, size, log)
    problems = work.decode(films, workers, corpus.name)
    geometries = work.geometries()
    bad = []
    for position, study in enumerate(studies):
        reason = problems.get(position) or _box_problem(study, geometries[position])
        if reason:
            bad.append((position, LeftOut(study.row or f"study {study.study_id}", reason)))
    stop_or_log(corpus.name, [row for _, row in bad], skip_bad_rows, log)
    left_out += [row for _, row in bad]
    broken = {position for position, _ in bad}
    keep = [position for position in range(len(studies)) if position not in broken]
    studies = [studies[position] for position in keep]
    splits = [splits[position] for position in keep]
    geometries = [geometries[position] for position in keep]
    _check_any(corpus.name, splits, left_out)

    groups: dict[str, list[str]] = dict(getattr(corpus, "label_groups", None) or {})
    names = list(
        dict.fromkeys(
            [name for study in studies for name in study.labels] + [name for group in groups.values() for name in group]
        )
    )
    index = _index_table(studies, splits, geometries, names)
    boxes = _boxes_table(studies, geometries)
    masks = _masks_table(studies)
    for table, file in ((index, "index.parquet"), (boxes, "boxes.parquet"), (masks, "masks.parquet")):
        _write_parquet(table, out / file)
    _write_left_out(left_out, out / "left_out.csv")
    work.finish(keep)
    patients: dict[str, set[str]] = defaultdict(set)
    for study, split in zip(studies, splits, strict=True):
        patients[split].add(study.patient_id)
    stated = [_found(size, studies) for size in getattr(corpus, "stated", ())]
    meta = {
        "format": FORMAT,
        "name": corpus.name,
        "licence": corpus.licence,
        "size": size,
        "studies": {split: splits.count(split) for split in SPLITS},
        "patients": {split: len(patients[split]) for split in SPLITS},
        "label_names": names,
        "label_groups": groups,
        "uncertain_as": dict(getattr(corpus, "uncertain_as", None) or {}),
        "unknown_as": dict(getattr(corpus, "unknown_as", None) or {}),
        "fingerprint": hashlib.sha256(canonical_json(settings).encode()).hexdigest(),
        "stated": stated,
        "settings": settings,
        "index_sha256": _content_hash(index, boxes, masks),
        **what_was_read(reader),
        "left_out": dict(sorted(Counter(kind_of(row.reason) for row in left_out).items())),
        "lingula": __version__,
    }
    write_text(out / "corpus.json", json.dumps(meta, indent=2) + "\n")
    shutil.rmtree(out / "unfinished", ignore_errors=True)
    counts = ", ".join(f"{meta['studies'][split]} {split}" for split in SPLITS)
    log(f"{corpus.name}: prepared {len(studies)} studies ({counts}) in {out}; left out {len(left_out)}")
    for line in stated:
        log(f"{corpus.name}: {_beside_stated(line, left_out)}")
    for remark in _empty_splits(meta, official):
        log(f"{corpus.name}: {remark}")
    say_what_was_read(corpus.name, reader, log)
    del films, studies, geometries, index, boxes, masks  # as much again is read back
    return PreparedCorpus.open(out)


# Rows -----------------------------------------------------------------------------------------------------------------


def _checked(
    corpus: Corpus, skip_bad_rows: bool, duplicates: Duplicates, log: Log
) -> tuple[list[Study], list[LeftOut], set[str]]:
    """Everything that can be known without decoding a film: sound studies, other rows, and the splits that either has.

    A split whose films are all missing is still the corpus's own: none is drawn in its place.
    """
    studies: list[Study] = []
    bad: list[LeftOut] = []
    unwanted: list[LeftOut] = []
    official: set[str] = set()
    for row in corpus.studies():
        if isinstance(row, LeftOut):
            (bad if row.bad else unwanted).append(row)
            continue
        if row.split is not None:
            official.add(row.split)
        reason = _problem(row)
        if reason:
            bad.append(LeftOut(where_of(row), reason))
        else:
            studies.append(row)
    studies, twice = listed_once(studies, duplicates)
    (bad if duplicates == "refuse" else unwanted).extend(twice)
    log_shared(corpus.name, studies, log)
    log_left_out(corpus.name, unwanted, log)
    stop_or_log(corpus.name, bad, skip_bad_rows, log)
    return studies, unwanted + bad, official


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


def _check_any(name: str, splits: list[str], left_out: list[LeftOut]) -> None:
    if not splits:
        raise UserError(f"{name}: no studies{_why(left_out)}")


def _why(left_out: list[LeftOut]) -> str:
    """``; left out: 3 missing image file, 1 lateral`` or nothing."""
    kinds = Counter(kind_of(row.reason) for row in left_out).most_common()
    return "; left out: " + ", ".join(f"{count} {kind}" for kind, count in kinds) if kinds else ""


def _found(stated: Stated, studies: list[Study]) -> dict[str, Any]:
    """What a paper or the publisher states, and what was ``found``."""
    if stated.what == "studies":
        found = len(studies)
    elif stated.what == "patients":
        found = len({study.patient_id for study in studies})
    else:
        found = sum(study.labels.get(stated.what) == 1 for study in studies)
    return {**dataclasses.asdict(stated), "found": found}


def _beside_stated(line: dict[str, Any], left_out: list[LeftOut]) -> str:
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


# Splits ---------------------------------------------------------------------------------------------------------------


def _splits(
    name: str, studies: list[Study], official: set[str], val_fraction: float, test_fraction: float, seed: int, log: Log
) -> list[str]:
    """One split a study; see :func:`prepare` for the rule. ``official``: splits that are not drawn into."""
    given: dict[str, tuple[str, str]] = {}
    for study in studies:
        if study.split is None:
            continue
        where = study.row or f"study {study.study_id}"
        split, first = given.setdefault(study.patient_id, (study.split, where))
        if split != study.split:
            raise UserError(
                f"{name}: patient '{study.patient_id}' is in two splits: {split} ({first}) and {study.split} "
                f"({where}); a model would be tested on patients that it has seen"
            )
    chosen = {patient: split for patient, (split, _) in given.items()}
    fractions = {"test": test_fraction, "val": val_fraction}
    fractions = {split: 0.0 if split in official else fraction for split, fraction in fractions.items()}
    missing = {study.patient_id for study in studies} - set(chosen)
    chosen |= draw_splits(missing, fractions, seed)
    if official and missing:
        drawn = ", ".join(sorted({chosen[patient] for patient in missing}))
        log(f"{name}: {len(missing)} patients without a split were drawn into {drawn}")
    return [chosen[study.patient_id] for study in studies]


def draw_splits(patients: Iterable[str], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """A split for every patient, by a hash of the seed and the patient alone.

    A patient keeps its split when others come or go. Only where a wanted split would stay empty does the patient next
    to its limit go there (train first, then in the order of ``fractions``), as long as there are as many patients as
    splits; with fewer, all are train.

    Args:
        patients: their ids.
        fractions: share of each split but train, which takes the rest.
        seed: of the hash.
    """
    draws = {
        patient: int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8], "big") / 2**64
        for patient in patients
    }
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    limits = dict(zip(wanted, np.cumsum(list(wanted.values())).tolist(), strict=True))
    chosen = {
        patient: next((split for split, limit in limits.items() if draw < limit), "train")
        for patient, draw in draws.items()
    }
    if len(draws) <= len(wanted):
        return dict.fromkeys(draws, "train")
    for split, limit in [("train", 1.0), *limits.items()]:
        sizes = Counter(chosen.values())
        if not sizes[split]:
            spare = [patient for patient in draws if sizes[chosen[patient]] > 1]
            chosen[min(spare, key=lambda patient: (abs(draws[patient] - limit), patient))] = split
    return chosen


# Files ----------------------------------------------------------------------------------------------------------------


def _index_table(
    studies: list[Study], splits: list[str], geometries: list[Geometry], label_names: list[str]
) -> pa.Table:
    import pyarrow as pa

    strings = pa.list_(pa.string())
    columns: dict[str, pa.Array] = {
        "study_id": pa.array([study.study_id for study in studies], pa.string()),
        "patient_id": pa.array([study.patient_id for study in studies], pa.string()),
        "split": pa.array(splits, pa.string()),
        "view": pa.array([study.view for study in studies], pa.string()),
        "image": pa.array(
            [str(study.image) if isinstance(study.image, Path) else "" for study in studies], pa.string()
        ),
        "height": pa.array([geometry.height for geometry in geometries], pa.int32()),
        "width": pa.array([geometry.width for geometry in geometries], pa.int32()),
        "scale": pa.array([geometry.scale for geometry in geometries], pa.float64()),
        "pad_x": pa.array([geometry.pad_x for geometry in geometries], pa.int32()),
        "pad_y": pa.array([geometry.pad_y for geometry in geometries], pa.int32()),
        "sentences": pa.array([[sentence.text for sentence in study.sentences] for study in studies], strings),
        "meanings": pa.array([[sentence.meaning for sentence in study.sentences] for study in studies], strings),
        "findings": pa.array([[sentence.finding for sentence in study.sentences] for study in studies], strings),
        "sentence_boxes": pa.array(
            [
                [
                    None if sentence.box is None else _prepared_box(sentence.box, geometry)
                    for sentence in study.sentences
                ]
                for study, geometry in zip(studies, geometries, strict=True)
            ],
            pa.list_(pa.list_(pa.float64())),
        ),
        "annotated": pa.array(
            [sorted({*study.annotated, *(box.name for box in study.boxes)}) for study in studies], strings
        ),
        "content": pa.array([study.content for study in studies], pa.string()),
        "row": pa.array([study.row for study in studies], pa.string()),
    }
    for name in label_names:
        values = [study.labels.get(name, float("nan")) for study in studies]
        columns[LABEL + name] = pa.array(values, pa.float32(), from_pandas=False)
    return pa.table(columns)


def _boxes_table(studies: list[Study], geometries: list[Geometry]) -> pa.Table:
    import pyarrow as pa

    rows = [
        (position, box.name, *_prepared_box((box.x0, box.y0, box.x1, box.y1), geometry))
        for position, (study, geometry) in enumerate(zip(studies, geometries, strict=True))
        for box in study.boxes
    ]
    types = {"row": pa.int64(), "name": pa.string()} | dict.fromkeys(("x0", "y0", "x1", "y1"), pa.float64())
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(types.items())})


def _masks_table(studies: list[Study]) -> pa.Table:
    import pyarrow as pa

    rows = [position for position, study in enumerate(studies) for _ in study.masks]
    names = [name for study in studies for name in study.masks]
    return pa.table({"row": pa.array(rows, pa.int64()), "name": pa.array(names, pa.string())})


def _prepared_box(box: tuple[float, float, float, float], geometry: Geometry) -> list[float]:
    """A box in prepared pixels, clipped to its film."""
    clipped = np.clip(box, 0, [geometry.width, geometry.height] * 2)
    return [float(value) for value in geometry.to_prepared(clipped)]


def _content_hash(*tables: pa.Table) -> str:
    """SHA-256 of the rows, whatever version of the Parquet library wrote them."""
    digest = hashlib.sha256()
    for table in tables:
        for batch in table.to_batches(max_chunksize=4096):
            digest.update(canonical_json(batch.to_pylist()).encode())
    return digest.hexdigest()


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)


def _write_left_out(rows: list[LeftOut], path: Path) -> None:
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "reason"])
    writer.writerows([row.row, row.reason] for row in rows)
    write_text(path, buffer.getvalue())
