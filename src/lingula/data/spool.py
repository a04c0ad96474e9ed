"""The rows of a source while it is prepared: on disk, with a few numbers of each in memory. Floor 2.

In memory are 41 bytes a study, and as many again while they are sorted; the studies themselves lie in a file without a
name beside what is written, which goes with the process, whatever ends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lingula.data.study import SPLITS, Study

IN_MEMORY = 8 * 2**20  # bytes; a smaller file is not written to disk
NO_SPLIT = -1


def beside(out: Path) -> Path:
    """The nearest folder of a path that is there."""
    return next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())


def number_of(text: str) -> int:
    """64 bits of a hash, never 0."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


class Spool:
    """Studies in their order.

    What cannot be pickled (a function that draws, defined inside another) stays in memory.

    Args:
        folder: where the file is made.
        seed: seed of the draw of splits.
    Attributes:
        folder: the same.
        label_names: of any study, in the order in which they were first seen.
        unpicklable: why a study could not be written, of the first such; empty where all were.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed with the object
        self.folder, self._seed = folder, seed
        self._starts = array("Q", [0])
        self._held: dict[int, Study] = {}
        self._ids, self._images, self._patients = array("Q"), array("Q"), array("Q")
        self._splits, self._masks, self._boxed = array("b"), array("i"), array("b")
        self.label_names: dict[str, None] = {}
        self.unpicklable = ""

    def add(self, study: Study) -> None:
        """Append a sound study."""
        try:
            data = pickle.dumps(study, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError) as err:
            self.unpicklable = self.unpicklable or str(err) or type(err).__name__
            self._held[len(self)] = study
            data = b""
        self._file.write(data)
        self._starts.append(self._starts[-1] + len(data))
        self._ids.append(number_of(study.study_id))
        self._images.append(number_of(os.fspath(study.image)) if isinstance(study.image, Path) else 0)
        self._patients.append(patient_number(study.patient_id, self._seed))
        self._splits.append(NO_SPLIT if study.split is None else SPLITS.index(study.split))
        self._masks.append(len(study.masks))
        boxed = bool(study.boxes) or any(sentence.box is not None for sentence in study.sentences)
        self._boxed.append(boxed)
        self.label_names |= dict.fromkeys(study.labels)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, positions: Iterable[int]) -> Iterator[Study]:
        """The studies at these positions, in their order."""
        for position in positions:
            if position in self._held:
                yield self._held[position]
                continue
            start, end = self._starts[position], self._starts[position + 1]
            if self._file.tell() != start:
                self._file.seek(start)
            yield pickle.loads(self._file.read(end - start))

    def at(self, position: int) -> Study:
        """One study."""
        return next(self.read([position]))

    @property
    def ids(self) -> np.ndarray:
        """``(n,)`` uint64 numbers of the study ids."""
        return _numbers(self._ids, np.uint64)

    @property
    def images(self) -> np.ndarray:
        """``(n,)`` uint64 numbers of the image files, 0 for what is drawn."""
        return _numbers(self._images, np.uint64)

    @property
    def patients(self) -> np.ndarray:
        """``(n,)`` uint64 numbers of the patients, which are their draws of a split as well."""
        return _numbers(self._patients, np.uint64)

    @property
    def splits(self) -> np.ndarray:
        """``(n,)`` int8 places in ``SPLITS`` of the splits that the corpus gives, ``NO_SPLIT`` where it gives none."""
        return _numbers(self._splits, np.int8)

    @property
    def masks(self) -> np.ndarray:
        """``(n,)`` int32: how many masks each has."""
        return _numbers(self._masks, np.int32)

    @property
    def boxed(self) -> np.ndarray:
        """``(n,)`` bool: which have boxes."""
        return _numbers(self._boxed, np.bool_)

    def close(self) -> None:
        """Give the file back."""
        with contextlib.suppress(OSError):
            self._file.close()


def _numbers(values: array[int], kind: type[np.generic]) -> np.ndarray:
    """An array's own memory as numpy sees it."""
    return np.frombuffer(values, dtype=kind) if len(values) else np.empty(0, dtype=kind)


def patient_number(patient: str, seed: int) -> int:
    """64 bits that are a patient's draw of a split: a function of the seed and the patient alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8], "big")
