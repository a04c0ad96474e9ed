"""Shards: a corpus on any storage that fsspec reaches, to be streamed instead of mapped. Floor 2.

::

    URL/
      PART/                  one a preparation, named by its fingerprint: a corpus may be prepared piece by piece
        shards.json          written last: what the part is, and how many studies each of its shards holds
        paired-00000.arrow   training studies with a report: study_id, pixels, sentences
        films-00000.arrow    training studies without one
        val/                 the validation split, a prepared corpus

A shard is an Arrow IPC file of one uncompressed record batch: on a local disk it is mapped, not read, and anything that
knows Arrow opens it. Which study lies in which shard was drawn once, so that a shard is a random sample.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lingula.data.films import Log
from lingula.data.prepared import PreparedCorpus
from lingula.registry import UserError
from lingula.terminal.progress import over

if TYPE_CHECKING:
    import fsspec

FORMAT = 1
SHARD_BYTES = 16 * 2**20  # of pixels: a good size of one request to an object store
VOCABULARY_SHARDS = 64  # from which a vocabulary is learnt


class Shard(NamedTuple):
    """A few hundred studies.

    Attributes:
        study_id: of each.
        pixels: ``(n, size, size)`` uint8, read-only.
        sentences: of each study's report.
    """

    study_id: list[str]
    pixels: np.ndarray
    sentences: list[list[str]]


class ShardedCorpus:
    """Shards, opened for reading.

    Attributes:
        url: where they lie.
        name, size, fingerprint: of the corpus; ``size`` in pixels.
        uri: of every training shard, in a fixed order, those with reports first.
        counts: ``(shards,)`` studies of each.
        paired: how many of the shards hold reports.
    """

    def __init__(self, url: str, files: fsspec.AbstractFileSystem, parts: list[tuple[str, dict[str, Any]]]):
        self.url, self._files, self._parts = url, files, parts
        first = parts[0][1]
        self.name: str = first["name"]
        self.size: int = first["size"]
        prints = [part["fingerprint"] for _, part in parts]
        self.fingerprint = prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest()
        listed = [
            (f"{folder}/{kind}-{number:05d}.arrow", count, kind == "paired")
            for kind in ("paired", "films")
            for folder, part in parts
            for number, count in enumerate(part[kind])
        ]
        self.uri = [uri for uri, _, _ in listed]
        self.counts = np.array([count for _, count, _ in listed], dtype=np.int64)
        self.paired = sum(of_pairs for _, _, of_pairs in listed)

    @classmethod
    def open(cls, url: str | Path) -> ShardedCorpus | None:
        """The shards at a folder or URL; ``None`` where there are none.

        Raises:
            UserError: if the storage cannot be reached, the parts are of different sizes, or of another format.
        """
        files, folder = _storage(url)
        with _in_words(f"cannot read {url}"):
            found = sorted(files.glob(f"{folder}/*/shards.json"))
            parts = [(path.rpartition("/")[0], json.loads(files.cat_file(path))) for path in found]
        if not parts:
            return None
        for path, part in parts:
            if part["format"] != FORMAT:
                raise UserError(f"{path} was written by format {part['format']}, this lingula reads {FORMAT}")
            if part["size"] != parts[0][1]["size"]:
                raise UserError(f"{url} holds films of {parts[0][1]['size']} px and of {part['size']} px ({path})")
        return cls(str(url), files, parts)

    def __repr__(self) -> str:
        return f"ShardedCorpus({self.name!r}, {self.counts.sum()} studies of {self.size} px, {self.url})"

    def read(self, number: int) -> Shard:
        """One shard.

        Raises:
            UserError: if it cannot be read, or is not what ``shards.json`` says.
        """
        import pyarrow as pa
        from fsspec.implementations.local import LocalFileSystem

        uri = self.uri[number]
        with _in_words(f"cannot read the shard {uri}"):
            local = isinstance(self._files, LocalFileSystem)
            source = pa.memory_map(uri) if local else pa.BufferReader(self._files.cat_file(uri))
            rows = pa.ipc.open_file(source).get_batch(0)
        if len(rows) != self.counts[number]:
            raise UserError(f"the shard {uri} is damaged: expected {self.counts[number]} studies, got {len(rows)}")
        pixels = np.frombuffer(rows.column("pixels").buffers()[1], dtype=np.uint8)
        return Shard(
            rows.column("study_id").to_pylist(),
            pixels.reshape(len(rows), self.size, self.size),
            rows.column("sentences").to_pylist(),
        )

    def training_texts(self) -> Iterator[str]:
        """Sentences of the training split, as a vocabulary is learnt from them: those of the first shards."""
        for number in range(min(self.paired, VOCABULARY_SHARDS)):
            for sentences in self.read(number).sentences:
                yield from sentences

    def validation(self, scratch: Path) -> PreparedCorpus | None:
        """The validation split of the first part that has one.

        Args:
            scratch: an empty folder to fetch it into.
        """
        for folder, part in self._parts:
            if part["val"]:
                with _in_words(f"cannot read {folder}/val"):
                    self._files.get(f"{folder}/val/", f"{scratch}/", recursive=True)
                return PreparedCorpus.open(scratch)
        return None


def open_corpus(where: str | Path) -> PreparedCorpus | ShardedCorpus:
    """What a folder or URL holds.

    Raises:
        UserError: if it is neither a prepared corpus nor shards, or cannot be read.
    """
    sharded = ShardedCorpus.open(where)
    if sharded is not None:
        return sharded
    if "://" in str(where):
        raise UserError(f'no shards at {where}; write them with "lingula prepare ... --shards {where}"')
    return PreparedCorpus.open(where)


def write_shards(corpus: PreparedCorpus, url: str | Path, seed: int = 0, log: Log = print) -> None:
    """Add a prepared corpus's training and validation split to the shards at a folder or URL.

    Written twice is a no-op; what was interrupted is written anew.

    Args:
        corpus: prepared.
        url: anything fsspec reaches: a folder, ``s3://bucket/corpus``, ``gs://...``.
        seed: of the draw of the studies into shards.
        log: takes one line of text.
    Raises:
        UserError: if the storage cannot be written, the corpus has nothing to train on, or the films there are of
            another size.
    """
    files, folder = _storage(url)
    there = ShardedCorpus.open(url)
    if there is not None and there.size != corpus.size:
        raise UserError(f"{url} holds films of {there.size} px, and {corpus.name} has {corpus.size} px")
    part = f"{folder}/{corpus.name}-{corpus.fingerprint[:12]}"
    if there is not None and any(uri.startswith(f"{part}/") for uri in there.uri):
        log(f"{corpus.name}: already in {url}; nothing to do")
        return
    train = corpus.rows("train")
    if not len(train):
        raise UserError(f"corpus {corpus.name} has no train studies to write shards of")
    has_report = corpus.reports.counts[train] > 0
    each = max(1, SHARD_BYTES // corpus.size**2)
    about: dict[str, Any] = {
        "format": FORMAT,
        "name": corpus.name,
        "licence": corpus.meta["licence"],
        "size": corpus.size,
        "fingerprint": corpus.fingerprint,
        "seed": seed,
    }
    with _in_words(f"cannot write shards to {url}"):
        files.makedirs(part, exist_ok=True)
        for kind, rows in (("paired", train[has_report]), ("films", train[~has_report])):
            rows = np.random.default_rng(seed).permutation(rows)
            shards = [rows[start : start + each] for start in range(0, len(rows), each)]
            for number, own in enumerate(over(shards, f"{corpus.name}: writing shards", "shard")):
                with files.open(f"{part}/{kind}-{number:05d}.arrow", "wb") as file:
                    ids = corpus.values("study_id", own).tolist()
                    write_shard(file, Shard(ids, corpus.pixels[own], corpus.reports.of(own)))
            about[kind] = [len(own) for own in shards]
        held_out = corpus.rows("val")
        about["val"] = len(held_out)
        if len(held_out):
            with tempfile.TemporaryDirectory() as scratch:
                corpus.write_part(held_out, Path(scratch))
                files.put(f"{scratch}/", f"{part}/val/", recursive=True)
        with files.open(f"{part}/shards.json", "w") as file:
            file.write(json.dumps(about, indent=2) + "\n")
    count = len(about["paired"]) + len(about["films"])
    said = f"{count} shard{'s' * (count != 1)}"
    log(f"{corpus.name}: {len(train)} train studies in {said}, and {about['val']} for validation, in {url}")


def write_shard(file: Any, shard: Shard) -> None:
    """One shard to an open binary file."""
    import pyarrow as pa

    count, height, width = shard.pixels.shape
    pixels = pa.py_buffer(np.ascontiguousarray(shard.pixels))
    columns = {
        "study_id": pa.array(shard.study_id, pa.string()),
        "pixels": pa.FixedSizeBinaryArray.from_buffers(pa.binary(height * width), count, [None, pixels]),
        "sentences": pa.array(shard.sentences, pa.list_(pa.string())),
    }
    batch = pa.record_batch(columns)
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Whatever goes wrong with a storage, as one line: each package of fsspec's raises errors of its own kind."""
    try:
        yield
    except Exception as err:
        raise UserError(f"{what}: {' '.join(str(err).split())}") from err


def _storage(url: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a folder or URL, and the path there.

    Raises:
        UserError: for a protocol that fsspec does not know, or whose package is not installed.
    """
    import fsspec

    try:
        files, folder = fsspec.core.url_to_fs(str(url))
    except (ImportError, ValueError) as err:
        raise UserError(f"cannot reach {url}: {err}") from err
    return files, str(folder).rstrip("/")
