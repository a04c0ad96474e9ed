"""The prepared corpus on disk: what every corpus becomes once, and everything else reads. Floor 2.

Format 3::

    OUT/
      corpus.json      written last: its presence says that the folder is whole
      studies.arrow    one row a study: study_id, patient_id, split, date, prior (row of the study before; null where
                       there is none or it is not known), sentences and their truth (meanings, findings), content, row
                       (where it stands in its source), ``label:<name>`` columns
      images.arrow     one row an image: study (row in studies.arrow), projection, order (place in its study), image
                       (its file), height, width, scale, pad_x, pad_y (its geometry), annotated, sentence_boxes
      boxes.arrow      row (of the image), name, x0, y0, x1, y1 in prepared pixels
      masks.arrow      row (of the image), name: whose mask each of masks.npy is
      pixels.npy       (n, size, size) uint8, letterboxed; pixels[i] belongs to row i of images.arrow
      masks.npy        (m, ceil(size * size / 8)) uint8, letterboxed like the images, eight pixels a byte
      left_out.csv     row, reason: every row of the source that became no study
      derived/         what was computed of it since, above all tokens; see :mod:`lingula.data.derived`
      unfinished/      only while a preparation runs, or after it was interrupted

The tables are Arrow IPC files of uncompressed record batches, which are memory-mapped: rows are looked up on disk, and
all processes of a machine share what was read. Today a study has one image, and both tables have as many rows.

:func:`lingula.data.preparation.prepare` writes it. Formats 1 and 2, whose tables were Parquet files and had to be read
whole, are opened too, and :func:`lingula.data.upgrade.upgrade` turns them into format 3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula.data.layout import BATCH, FORMAT, LABEL, TABLES, TableWriter, schemas
from lingula.data.mapped import Mapped, Rows
from lingula.data.study import SPLITS
from lingula.registry import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

OLDER = (1, 2)  # formats that are read too


class Texts(Sequence[list[str]]):
    """The sentences of every study's report, looked up when they are asked for; none for an image without a report.

    Args:
        studies: the table.
    """

    def __init__(self, studies: Mapped) -> None:
        self._studies = studies

    def __len__(self) -> int:
        return len(self._studies)

    def __getitem__(self, row: Any) -> Any:
        """The sentences of a row, or of each row of a slice."""
        if isinstance(row, slice):
            return self.of(np.arange(len(self))[row])
        row = int(row)
        return self.of([row + len(self) if row < 0 else row])[0]

    def __iter__(self) -> Iterator[list[str]]:
        for part in self._studies.batches("sentences"):
            yield from part.to_pylist()

    def of(self, rows: Rows) -> list[list[str]]:
        """The sentences of each of these rows."""
        return self._studies.lists("sentences", rows)

    @property
    def counts(self) -> np.ndarray:
        """``(n,)`` int64: how many sentences each has."""
        import pyarrow.compute as pc

        lengths = [pc.list_value_length(part).to_numpy() for part in self._studies.batches("sentences")]
        return np.concatenate([np.empty(0, dtype=np.int64), *lengths]).astype(np.int64)


class TrainingTexts:
    """The sentences of the training split, again each time they are asked for.

    Args:
        studies: the table.
    """

    def __init__(self, studies: Mapped) -> None:
        self._studies = studies

    def __iter__(self) -> Iterator[str]:
        import pyarrow.compute as pc

        for split, part in zip(self._studies.batches("split"), self._studies.batches("sentences"), strict=True):
            own = pc.equal(split.dictionary_decode(), "train")
            yield from part.filter(own).flatten().to_pylist()


class PreparedCorpus:
    """A finished preparation, opened for reading. Pickles as its path, so that data loader workers map the same file.

    A row is an image, with the study that it is of; what is asked of rows comes as numpy or Python for these alone.

    Attributes:
        folder: where it lies.
        meta: the content of ``corpus.json``.
        name, size, fingerprint, label_names, label_groups: from ``meta``; ``size`` in pixels.
        reports: the sentences of every row's report: ``reports[row]``, ``reports.of(rows)``.
        uncertain_as, unknown_as: what the corpus's usual protocol takes -1 and NaN of a label for, where it has one.
        pixels: ``(n, size, size)`` uint8, memory-mapped, read-only.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        tables: dict[str, Mapped],
        pixels: np.ndarray,
        packed_masks: np.ndarray,
    ):
        self.folder = folder
        self.meta = meta
        self._tables = tables
        self.pixels = pixels
        self._packed_masks = packed_masks
        self.reports = Texts(tables["studies"])
        self.name: str = meta["name"]
        self.size: int = meta["size"]
        self.fingerprint: str = meta["fingerprint"]
        self.label_names: list[str] = meta["label_names"]
        self.label_groups: dict[str, list[str]] = meta["label_groups"]
        self.uncertain_as: dict[str, float] = meta.get("uncertain_as", {})
        self.unknown_as: dict[str, float] = meta.get("unknown_as", {})

    @classmethod
    def open(cls, path: Path | str) -> PreparedCorpus:
        """Open the folder that :func:`prepare` finished.

        Raises:
            UserError: if the folder is missing, unfinished, of another format, or damaged.
        """
        folder = Path(path)
        if "://" in str(path) or any(folder.glob("*/shards.json")):
            raise UserError(
                f"{path} holds shards, which are for pre-training; measure on a prepared corpus (--corpus FOLDER)"
            )
        if not folder.is_dir():
            raise UserError(f'no prepared corpus at {folder}: no such folder; make one with "lingula prepare"')
        meta = read_meta(folder)
        if meta is None:
            if (folder / "unfinished").is_dir():
                raise UserError(f"the preparation in {folder} was not finished; run the same command again to go on")
            raise UserError(f'no prepared corpus at {folder}: it holds no corpus.json; make one with "lingula prepare"')
        try:
            if meta["format"] in OLDER:
                from lingula.data.upgrade import older_tables

                tables = older_tables(folder, meta)
            else:
                tables = {name: Mapped.open(folder / f"{name}.arrow") for name in TABLES}
            pixels = np.load(folder / "pixels.npy", mmap_mode="r")
            count = len(tables["masks"])
            packed = np.empty((0, packed_bytes(meta["size"])), dtype=np.uint8)
            if count or (folder / "masks.npy").exists():
                packed = np.load(folder / "masks.npy", mmap_mode="r" if count else None)
        except (OSError, EOFError, ValueError) as err:
            raise UserError(f"the prepared corpus at {folder} is damaged ({err}); delete it and prepare again") from err
        expected = (sum(meta["studies"].values()), meta["size"], meta["size"])
        if pixels.shape != expected or {len(tables["studies"]), len(tables["images"])} != {expected[0]}:
            raise UserError(
                f"the prepared corpus at {folder} is damaged (expected pixels of shape {expected}, got {pixels.shape} "
                f"and tables of {len(tables['studies'])} studies and {len(tables['images'])} images); delete it and "
                "prepare again"
            )
        if packed.shape != (count, packed_bytes(meta["size"])):
            raise UserError(
                f"the prepared corpus at {folder} is damaged (expected {count} masks of {meta['size']} px, "
                f"got an array of shape {packed.shape}); delete it and prepare again"
            )
        return cls(folder, meta, tables, pixels, packed)

    def __len__(self) -> int:
        return len(self._tables["images"])

    def __repr__(self) -> str:
        return f"PreparedCorpus({self.name!r}, {len(self)} studies of {self.size} px, {self.folder})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedCorpus.open, (self.folder,)

    @property
    def content_hash(self) -> str:
        """Equal where the tables are: 16 hexadecimal digits."""
        own = [self.fingerprint, self.meta.get("index_sha256"), self.meta["studies"]]
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]

    # Rows, and what is known of them ----------------------------------------------------------------------------------

    def rows(self, split: str) -> np.ndarray:
        """Positions of the studies of ``train``, ``val`` or ``test``, ascending; ``(n,)`` int64."""
        if split not in SPLITS:
            raise UserError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")
        return self._tables["studies"].where("split", split)

    def rows_with_report(self) -> np.ndarray:
        """Positions of the images with a report, ascending; ``(n,)`` int64."""
        return np.flatnonzero(self.reports.counts)

    def values(self, name: str, rows: Rows | None = None) -> np.ndarray:
        """A column of the studies or the images: numbers, or ``str`` and ``None`` objects.

        Args:
            name: of the column; see the head of this file.
            rows: ``(n,)``; all if not given.
        """
        return self._table_of(name).values(name, rows)

    def lists(self, name: str, rows: Rows) -> list[Any]:
        """The same as Python objects, for columns that hold a list a row: ``meanings``, ``sentence_boxes``."""
        return self._table_of(name).lists(name, rows)

    def batches(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Columns of the studies, a record batch after another, as lists of Python objects."""
        for parts in zip(*(self._tables["studies"].batches(name) for name in names), strict=True):
            yield tuple(part.to_pylist() for part in parts)

    def knows(self, name: str) -> bool:
        """Whether ``meanings`` or ``findings`` are known of any sentence."""
        parts = (part.flatten() for part in self._tables["studies"].batches(name))
        return any(part.null_count < len(part) for part in parts)

    def _table_of(self, name: str) -> Mapped:
        return self._tables["images" if name in self._tables["images"].schema.names else "studies"]

    def labels(self, names: Sequence[str], rows: Rows | None = None) -> np.ndarray:
        """``(n, C)`` float32: 1 present, 0 absent, -1 uncertain, NaN unknown.

        Args:
            names: of the labels.
            rows: ``(n,)``; all if not given.
        Raises:
            UserError: for a label that the corpus does not have.
        """
        for name in names:
            if name not in self.label_names:
                hint = nearest(name, self.label_names) or f"; it has: {', '.join(self.label_names) or 'none'}"
                raise UserError(f"corpus {self.name} has no label '{name}'{hint}")
        found = np.empty((len(self) if rows is None else len(rows), len(names)), dtype=np.float32)
        for column, name in enumerate(names):
            found[:, column] = self.values(LABEL + name, rows)
        return found

    def training_texts(self) -> TrainingTexts:
        """The sentences of the training split, as a vocabulary is learnt from them."""
        return TrainingTexts(self._tables["studies"])

    def to_pandas(self, rows: Rows | None = None) -> pd.DataFrame:
        """Studies and images side by side as a data frame, a copy in memory: for a notebook.

        Args:
            rows: which; all of them if not given.
        """
        import pandas as pd

        studies, images = (self._tables[name].to_pandas(rows) for name in ("studies", "images"))
        frame = pd.concat([studies.astype({"split": str}), images.drop(columns="study")], axis=1)
        frame["content"] = frame["content"].astype(object).where(frame["content"].notna(), None)
        return frame

    # Masks and boxes --------------------------------------------------------------------------------------------------

    @cached_property
    def mask_names(self) -> list[str]:
        """What some of the films have a mask of, sorted."""
        return _distinct(self._tables["masks"].batches("name"))

    def rows_with_mask(self, name: str) -> np.ndarray:
        """Positions of the studies with a mask of this name, be it empty; ascending ``(n,)`` int64.

        Raises:
            UserError: for a name that no mask has.
        """
        return self._places(name)[0].copy()

    def masks(self, rows: Rows, name: str) -> np.ndarray:
        """``(n, size, size)`` bool, in the geometry of ``pixels``.

        Raises:
            UserError: for a name that no mask has.
            KeyError: for a row without such a mask.
        """
        own, places = self._places(name)
        wanted = np.asarray(rows, dtype=np.int64)
        found = np.searchsorted(own, wanted).clip(max=len(own) - 1)
        without = wanted[own[found] != wanted]
        if len(without):
            raise KeyError(int(without[0]))
        bits = np.unpackbits(self._packed_masks[places[found]], axis=1, count=self.size * self.size)
        return bits.reshape(-1, self.size, self.size).astype(bool)

    def _places(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows with a mask, ascending, and where it lies among all masks."""
        if name not in self.mask_names:
            hint = nearest(name, self.mask_names) or f"; it has: {', '.join(self.mask_names) or 'none'}"
            raise UserError(f"corpus {self.name} has no mask '{name}'{hint}")
        if name not in self._places_of:
            places = self._tables["masks"].where("name", name)
            self._places_of[name] = self._tables["masks"].values("row", places), places
        return self._places_of[name]

    @cached_property
    def _places_of(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {}

    def boxes(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """``row`` (position of the image), ``name``, ``x0, y0, x1, y1`` in prepared pixels.

        Args:
            names: of the boxes; all of them if not given.
        """
        table = self._tables["boxes"]
        if names is None:
            return table.to_pandas()
        own = [table.where("name", name) for name in {*names}]
        return table.to_pandas(np.sort(np.concatenate([np.empty(0, dtype=np.int64), *own])))

    @cached_property
    def box_names(self) -> list[str]:
        """What annotators drew boxes around on some of the films, or looked for; sorted."""
        return _distinct(part.flatten() for part in self._tables["images"].batches("annotated"))

    def rows_with_boxes(self, names: Sequence[str]) -> np.ndarray:
        """Positions of the studies on which annotators looked for all of these, found or not; ascending ``(n,)`` int64.

        Raises:
            UserError: for a name that nobody looked for.
        """
        import pyarrow.compute as pc

        for name in names:
            if name not in self.box_names:
                hint = nearest(name, self.box_names) or f"; it has: {', '.join(self.box_names) or 'none'}"
                raise UserError(f"corpus {self.name} has no boxes '{name}'{hint}")
        looked = np.ones((len(self), len(names)), dtype=bool)
        images = self._tables["images"]
        for start, part in zip(images.starts.tolist(), images.batches("annotated"), strict=False):
            parents, flat = pc.list_parent_indices(part).to_numpy(), part.flatten()
            for column, name in enumerate(names):
                looked[start : start + len(part), column] = False
                here = pc.equal(flat, name).to_numpy(zero_copy_only=False)
                looked[start + parents[here], column] = True
        return np.flatnonzero(looked.all(axis=1))

    # A part of it -----------------------------------------------------------------------------------------------------

    def write_part(self, rows: np.ndarray, folder: Path) -> None:
        """Write a prepared corpus of these studies alone, with its parent's fingerprint.

        Args:
            rows: ascending positions.
            folder: where; made if need be.
        """
        import pyarrow as pa

        folder.mkdir(parents=True, exist_ok=True)
        places = {name: np.flatnonzero(np.isin(self._tables[name].values("row"), rows)) for name in ("boxes", "masks")}
        digest = hashlib.sha256()
        for name, schema in schemas(self.label_names).items():
            table, writer = self._tables[name], TableWriter(folder, name, schema)
            own = places.get(name, rows)
            for start in range(0, len(own), BATCH):
                some = own[start : start + BATCH]
                columns = {field.name: table.take(field.name, some) for field in schema}
                for link in {"study", "prior", "row"} & set(columns):  # rows of the whole, now of the part
                    if pa.types.is_int64(columns[link].type):
                        columns[link] = _moved(columns[link], rows)
                writer.write(columns)
            digest.update(writer.finish())
        np.save(folder / "pixels.npy", self.pixels[rows])
        np.save(folder / "masks.npy", self._packed_masks[places["masks"]])
        splits, patients = self.values("split", rows), self.values("patient_id", rows)
        meta = {
            **self.meta,
            "format": FORMAT,
            "studies": {split: int((splits == split).sum()) for split in SPLITS},
            "patients": {split: len(set(patients[splits == split].tolist())) for split in SPLITS},
            "index_sha256": digest.hexdigest(),
        }
        (folder / "corpus.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def _distinct(parts: Iterator[Any]) -> list[str]:
    """The different texts of a column, sorted."""
    import pyarrow.compute as pc

    found: set[str] = set()
    for part in parts:
        found.update(pc.unique(part).to_pylist())
    return sorted(found)


def _moved(links: Any, rows: np.ndarray) -> Any:
    """Rows of the whole corpus as places among ``rows``; null for those that are not there."""
    import pyarrow as pa

    places = {row: place for place, row in enumerate(rows.tolist())}
    return pa.array([places.get(link) for link in links.to_pylist()], pa.int64())


def packed_bytes(size: int) -> int:
    """Bytes of one mask of ``size`` by ``size`` pixels, eight a byte."""
    return (size * size + 7) // 8


def read_meta(folder: Path) -> dict[str, Any] | None:
    """``corpus.json`` of a folder; None where there is none.

    Raises:
        UserError: if it is damaged, or of another format.
    """
    try:
        meta = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        found = meta["format"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as err:
        raise UserError(f"{folder / 'corpus.json'} is damaged ({err}); delete the folder and prepare again") from err
    if found != FORMAT and found not in OLDER:
        raise UserError(f"{folder} was prepared by format {found}, this lingula reads {FORMAT}; run prepare again")
    return meta
