"""The prepared corpus on disk: what every corpus becomes once, and everything else reads. Floor 2.

::

    OUT/
      corpus.json      written last: its presence says that the folder is whole
      index.parquet    one row a study: ids, split, view, geometry, sentences and their truth, ``label:<name>`` columns
      boxes.parquet    row (position in the index), name, x0, y0, x1, y1 in prepared pixels
      masks.parquet    row, name: whose mask each of masks.npy is
      pixels.npy       (n, size, size) uint8, letterboxed; pixels[i] belongs to row i of the index
      masks.npy        (m, ceil(size * size / 8)) uint8, letterboxed like the films, eight pixels a byte
      left_out.csv     row, reason: every row of the source that became no study
      unfinished/      only while a preparation runs, or after it was interrupted

:func:`lingula.data.preparation.prepare` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lingula.data.study import SPLITS
from lingula.registry import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
LABEL = "label:"  # prefix of the label columns


class PreparedCorpus:
    """A finished preparation, opened for reading. Pickles as its path, so that data loader workers map the same file.

    Attributes:
        folder: where it lies.
        meta: the content of ``corpus.json``.
        name, size, fingerprint, label_names, label_groups: from ``meta``; ``size`` in pixels.
        index: one row a study, in the order of ``pixels``.
        uncertain_as, unknown_as: what the corpus's usual protocol takes -1 and NaN of a label for, where it has one.
        boxes: ``row`` (position in the index), ``name``, ``x0, y0, x1, y1`` in prepared pixels.
        mask_rows: ``row``, ``name`` of each mask.
        pixels: ``(n, size, size)`` uint8, memory-mapped, read-only.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        index: pd.DataFrame,
        boxes: pd.DataFrame,
        mask_rows: pd.DataFrame,
        pixels: np.ndarray,
        packed_masks: np.ndarray,
    ):
        self.folder = folder
        self.meta = meta
        self.index = index
        self.boxes = boxes
        self.mask_rows = mask_rows
        self.pixels = pixels
        self._packed_masks = packed_masks
        self.name: str = meta["name"]
        self.size: int = meta["size"]
        self.fingerprint: str = meta["fingerprint"]
        self.label_names: list[str] = meta["label_names"]
        self.label_groups: dict[str, list[str]] = meta["label_groups"]
        self.uncertain_as: dict[str, float] = meta["uncertain_as"]
        self.unknown_as: dict[str, float] = meta["unknown_as"]

    @classmethod
    def open(cls, path: Path | str) -> PreparedCorpus:
        """Open the folder that :func:`prepare` finished.

        Raises:
            UserError: if the folder is missing, unfinished, of another format, or damaged.
        """
        import pandas as pd

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
            index = pd.read_parquet(folder / "index.parquet")
            index["content"] = index["content"].astype(object).where(index["content"].notna(), None)
            boxes = pd.read_parquet(folder / "boxes.parquet")
            mask_rows = pd.read_parquet(folder / "masks.parquet")
            pixels = np.load(folder / "pixels.npy", mmap_mode="r")
            packed = np.load(folder / "masks.npy", mmap_mode="r" if len(mask_rows) else None)
        except (OSError, EOFError, ValueError) as err:
            raise UserError(f"the prepared corpus at {folder} is damaged ({err}); delete it and prepare again") from err
        expected = (sum(meta["studies"].values()), meta["size"], meta["size"])
        if pixels.shape != expected or len(index) != expected[0]:
            raise UserError(
                f"the prepared corpus at {folder} is damaged (expected pixels of shape {expected}, got {pixels.shape} "
                f"and an index of {len(index)} rows); delete it and prepare again"
            )
        if packed.shape != (len(mask_rows), packed_bytes(meta["size"])):
            raise UserError(
                f"the prepared corpus at {folder} is damaged (expected {len(mask_rows)} masks of {meta['size']} px, "
                f"got an array of shape {packed.shape}); delete it and prepare again"
            )
        return cls(folder, meta, index, boxes, mask_rows, pixels, packed)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"PreparedCorpus({self.name!r}, {len(self)} studies of {self.size} px, {self.folder})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedCorpus.open, (self.folder,)

    def rows(self, split: str) -> np.ndarray:
        """Positions of the studies of ``train``, ``val`` or ``test``, ascending; ``(n,)`` int64."""
        if split not in SPLITS:
            raise UserError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")
        return np.flatnonzero((self.index["split"] == split).to_numpy())

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """``(n, C)`` float32: 1 present, 0 absent, -1 uncertain, NaN unknown.

        Raises:
            UserError: for a label that the corpus does not have.
        """
        for name in names:
            if name not in self.label_names:
                hint = nearest(name, self.label_names) or f"; it has: {', '.join(self.label_names) or 'none'}"
                raise UserError(f"corpus {self.name} has no label '{name}'{hint}")
        return np.array(self.index[[LABEL + name for name in names]], dtype=np.float32, order="C")  # a copy

    @cached_property
    def reports(self) -> list[list[str]]:
        """The sentences of every study; an empty list for a film without a report."""
        return [list(sentences) for sentences in self.index["sentences"]]

    def training_texts(self) -> Iterator[str]:
        """The sentences of the training split, as a vocabulary is learnt from them."""
        return (sentence for row in self.rows("train") for sentence in self.reports[row])

    @cached_property
    def mask_names(self) -> list[str]:
        """What some of the films have a mask of, sorted."""
        return sorted(set(self.mask_rows["name"]))

    def rows_with_mask(self, name: str) -> np.ndarray:
        """Positions of the studies with a mask of this name, be it empty; ascending ``(n,)`` int64.

        Raises:
            UserError: for a name that no mask has.
        """
        return np.array(sorted(self._places(name)), dtype=np.int64)

    def masks(self, rows: Sequence[int] | np.ndarray, name: str) -> np.ndarray:
        """``(n, size, size)`` bool, in the geometry of ``pixels``.

        Raises:
            UserError: for a name that no mask has.
            KeyError: for a row without such a mask.
        """
        places = self._places(name)
        packed = self._packed_masks[[places[int(row)] for row in rows]]
        bits = np.unpackbits(packed, axis=1, count=self.size * self.size)
        return bits.reshape(-1, self.size, self.size).astype(bool)

    def _places(self, name: str) -> dict[int, int]:
        if name not in self.mask_names:
            hint = nearest(name, self.mask_names) or f"; it has: {', '.join(self.mask_names) or 'none'}"
            raise UserError(f"corpus {self.name} has no mask '{name}'{hint}")
        if name not in self._places_of:
            own = self.mask_rows[self.mask_rows["name"] == name]
            self._places_of[name] = dict(zip(own["row"].tolist(), own.index.tolist(), strict=True))
        return self._places_of[name]

    @cached_property
    def _places_of(self) -> dict[str, dict[int, int]]:
        return {}

    @cached_property
    def box_names(self) -> list[str]:
        """What annotators drew boxes around on some of the films, or looked for; sorted."""
        return sorted({name for names in self.index["annotated"] for name in names})

    def rows_with_boxes(self, names: Sequence[str]) -> np.ndarray:
        """Positions of the studies on which annotators looked for all of these, found or not; ascending ``(n,)`` int64.

        Raises:
            UserError: for a name that nobody looked for.
        """
        for name in names:
            if name not in self.box_names:
                hint = nearest(name, self.box_names) or f"; it has: {', '.join(self.box_names) or 'none'}"
                raise UserError(f"corpus {self.name} has no boxes '{name}'{hint}")
        wanted = set(names)
        return np.flatnonzero([wanted <= set(looked_for) for looked_for in self.index["annotated"]])

    def write_part(self, rows: np.ndarray, folder: Path) -> None:
        """Write a prepared corpus of these studies alone, with its parent's fingerprint.

        Args:
            rows: ascending positions.
            folder: where; made if need be.
        """
        folder.mkdir(parents=True, exist_ok=True)
        index = self.index.iloc[rows]
        boxes = self.boxes[self.boxes["row"].isin(rows)]
        mask_rows = self.mask_rows[self.mask_rows["row"].isin(rows)]
        index.to_parquet(folder / "index.parquet", index=False)
        for table, file in ((boxes, "boxes.parquet"), (mask_rows, "masks.parquet")):
            table.assign(row=np.searchsorted(rows, table["row"])).to_parquet(folder / file, index=False)
        np.save(folder / "pixels.npy", self.pixels[rows])
        np.save(folder / "masks.npy", self._packed_masks[mask_rows.index])
        of_split = {split: index[index["split"] == split] for split in SPLITS}
        meta = {
            **self.meta,
            "studies": {split: len(own) for split, own in of_split.items()},
            "patients": {split: own["patient_id"].nunique() for split, own in of_split.items()},
        }
        (folder / "corpus.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


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
    if found != FORMAT:
        raise UserError(f"{folder} was prepared by format {found}, this lingula reads {FORMAT}; run prepare again")
    return meta
