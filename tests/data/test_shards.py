"""Shards, on a local disk and on storage that is not: what was prepared comes back, and what is broken is named."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from lingula.corpora.synthetic import Synthetic
from lingula.data import shards
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import ShardedCorpus, open_corpus, write_shards
from lingula.registry import UserError


def quiet(line):
    """Nobody is told."""


@pytest.fixture(scope="module")
def corpus(tiny, tmp_path_factory):
    made = prepare(Synthetic(train=30, val=5, test=4, film_size=40), tmp_path_factory.mktemp("a"), 40, 0, log=quiet)
    return tiny.unreported(made, made.rows("train")[[3, 8]])


@pytest.fixture(params=["folder", "memory"])
def url(request, tmp_path):
    yield str(tmp_path / "shards") if request.param == "folder" else "memory://bucket/corpus"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 7 * 40 * 40)


def test_every_training_study_is_in_one_shard_as_it_was_prepared(corpus, url):
    write_shards(corpus, url, log=quiet)
    opened = open_corpus(url)
    assert isinstance(opened, ShardedCorpus)
    assert (opened.name, opened.size, opened.fingerprint) == (corpus.name, 40, corpus.fingerprint)
    assert opened.counts.tolist() == [7, 7, 7, 7, 2]
    assert opened.paired == 4
    position = {study: place for place, study in enumerate(corpus.to_pandas()["study_id"])}
    seen = []
    for number in range(5):
        shard = opened.read(number)
        rows = [position[study] for study in shard.study_id]
        assert (shard.pixels == corpus.pixels[rows]).all()
        assert shard.sentences == [corpus.reports[row] for row in rows]
        assert all(map(len, shard.sentences)) == (number < 4)
        seen += rows
    assert sorted(seen) == corpus.rows("train").tolist()
    assert seen != sorted(seen)
    assert set(opened.training_texts()) == {s for row in corpus.rows("train") for s in corpus.reports[row]}


def test_the_validation_split_is_a_prepared_corpus(corpus, url, tmp_path):
    write_shards(corpus, url, log=quiet)
    val, rows = open_corpus(url).validation(tmp_path / "val"), corpus.rows("val")
    assert isinstance(val, PreparedCorpus)
    assert val.rows("val").tolist() == list(range(5))
    assert (val.pixels == corpus.pixels[rows]).all()
    assert list(val.reports) == [corpus.reports[row] for row in rows]
    for name in set(val.mask_names) & set(corpus.mask_names):
        own = [row for row in rows if row in corpus.rows_with_mask(name)]
        assert (val.masks(np.searchsorted(rows, own), name) == corpus.masks(own, name)).all()
    of_rows = corpus.boxes()[corpus.boxes()["row"].isin(rows)]
    assert len(of_rows) > 0
    assert (rows[val.boxes()["row"]] == of_rows["row"]).all()
    assert val.boxes()["x0"].tolist() == of_rows["x0"].tolist()


def test_anything_that_knows_arrow_opens_a_shard(corpus, tmp_path):
    write_shards(corpus, tmp_path, log=quiet)
    (file,) = tmp_path.glob("*/films-00000.arrow")
    table = pa.ipc.open_file(file).read_all()
    assert table.column_names == ["study_id", "pixels", "sentences"]
    assert len(table["pixels"][0].as_py()) == 40 * 40


def test_written_twice_is_a_no_op_and_two_preparations_add_up(corpus, url, tmp_path):
    said = []
    write_shards(corpus, url, log=said.append)
    write_shards(corpus, url, log=said.append)
    assert "nothing to do" in said[-1]
    assert open_corpus(url).counts.sum() == 30
    other = prepare(Synthetic(train=9, val=0, test=0, film_size=40, seed=1), tmp_path / "b", 40, 0, log=quiet)
    write_shards(other, url, log=quiet)
    both = open_corpus(url)
    assert both.counts.sum() == 39
    assert both.fingerprint not in (corpus.fingerprint, other.fingerprint)
    assert sum(both.counts[: both.paired]) == 37  # those with reports first, of whichever preparation
    assert both.validation(tmp_path / "val").rows("val").tolist() == list(range(5))


def test_what_is_missing_or_broken_is_named(corpus, url, tmp_path):
    files, folder = fsspec.core.url_to_fs(url)
    with pytest.raises(UserError, match=r"no shards at memory|no prepared corpus at"):
        open_corpus(url)
    write_shards(corpus, url, log=quiet)
    smaller = prepare(Synthetic(train=9, val=0, test=0, film_size=40), tmp_path / "c", 20, 0, log=quiet)
    with pytest.raises(UserError, match="holds films of 40 px, and synthetic has 20 px"):
        write_shards(smaller, url, log=quiet)
    (file,) = files.glob(f"{folder}/*/paired-00002.arrow")
    whole = files.cat_file(file)
    files.pipe_file(file, whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read the shard .*paired-00002"):
        open_corpus(url).read(2)
    files.rm_file(file)
    with pytest.raises(UserError, match=r"cannot read the shard .*paired-00002"):
        open_corpus(url).read(2)
    (short,) = files.glob(f"{folder}/*/films-00000.arrow")
    files.pipe_file(short, whole)
    with pytest.raises(UserError, match="damaged: expected 2 studies, got 7"):
        open_corpus(url).read(4)
    (about,) = files.glob(f"{folder}/*/shards.json")
    meta = json.loads(files.cat_file(about))
    files.pipe_file(about, json.dumps({**meta, "format": 99}).encode())
    with pytest.raises(UserError, match="format 99"):
        open_corpus(url)
    files.rm_file(about)  # as if the writing had been interrupted
    assert ShardedCorpus.open(url) is None
    with pytest.raises(UserError, match="cannot reach nowhere://"):
        open_corpus("nowhere://bucket")


@pytest.mark.parametrize("call", ["glob", "cat_file", "get", "makedirs", "open"])
def test_errors_of_the_storages_own_kind_are_one_line(call, corpus, tmp_path, monkeypatch):
    """Those of s3fs come from botocore, and are no OSErrors."""

    class EndpointConnectionError(Exception):
        pass

    def refused(*_, **__):
        raise EndpointConnectionError("Could not connect\n to the endpoint")

    url = "memory://bucket/corpus"
    if call not in ("makedirs", "open"):
        write_shards(corpus, url, log=quiet)
    there = ShardedCorpus.open(url)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), call, refused)
    ask = {
        "get": lambda: there.validation(tmp_path),
        "makedirs": lambda: write_shards(corpus, url, log=quiet),
        "open": lambda: write_shards(corpus, url, log=quiet),
    }
    with pytest.raises(UserError, match=r"^cannot (read|write) .*: Could not connect to the endpoint$"):
        ask.get(call, lambda: open_corpus(url))()
    fsspec.filesystem("memory").store.clear()


def test_a_prepared_corpus_is_opened_as_one(corpus):
    assert isinstance(open_corpus(corpus.folder), PreparedCorpus)
    assert isinstance(open_corpus(Path(corpus.folder)), PreparedCorpus)
