"""Corpora of older formats: opened as they are, and turned into format 3, whole at every moment."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lingula.cli import main
from lingula.data import layout, upgrade
from lingula.data.layout import TABLES
from lingula.data.mapped import Mapped
from lingula.data.prepared import PreparedCorpus
from lingula.registry import UserError


@pytest.fixture
def older(tiny_corpus, tmp_path):
    """A function that writes the tiny corpus as formats 1 and 2 had it: tables in Parquet files."""

    def write(number):
        folder, whole = tmp_path / f"format-{number}", PreparedCorpus.open(tiny_corpus)
        folder.mkdir()
        frame = whole.to_pandas().drop(columns=["date", "prior", "order"]).rename(columns={"projection": "view"})
        masks = pd.DataFrame({"row": [2, 2, 5], "name": ["lung", "heart", "lung"]})
        packed = np.random.default_rng(0).integers(0, 256, (3, 48 * 6), dtype=np.uint8)
        meta = {**whole.meta, "format": number}
        if number == 1:
            frame = frame.drop(columns="annotated")
            meta = {name: value for name, value in meta.items() if name not in ("uncertain_as", "unknown_as")}
        else:
            masks.to_parquet(folder / "masks.parquet")
            np.save(folder / "masks.npy", packed)
        frame.to_parquet(folder / "index.parquet")
        whole.boxes().to_parquet(folder / "boxes.parquet")
        shutil.copy(tiny_corpus / "pixels.npy", folder)
        (folder / "corpus.json").write_text(json.dumps(meta))
        return folder

    return write


def same(one, other):
    for name in ("studies", "images", "boxes"):
        a, b = one._tables[name], other._tables[name]
        assert a.schema == b.schema
        for column in a.schema.names:
            rows = range(len(a))
            if column != "annotated":
                np.testing.assert_equal(a.lists(column, rows), b.lists(column, rows))
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("number", [1, 2])
def test_opened_as_they_are_and_after(older, tiny_corpus, number, monkeypatch, capsys):
    monkeypatch.setattr(upgrade, "BATCH", 7)
    new, folder = PreparedCorpus.open(tiny_corpus), older(number)
    before = PreparedCorpus.open(folder)
    same(before, new)
    pixels = (folder / "pixels.npy").stat().st_ino
    main(["prepare", "--upgrade", str(folder)])
    assert f"{folder} is now of format 3" in capsys.readouterr().out
    after = PreparedCorpus.open(folder)
    same(after, new)
    assert (folder / "pixels.npy").stat().st_ino == pixels
    assert after.meta == {**before.meta, "format": 3}
    assert not list(folder.glob("*.parquet"))
    assert after.box_names == before.box_names
    if number == 2:
        assert after.box_names == new.box_names
        assert after.mask_names == ["heart", "lung"]
        assert after.rows_with_mask("lung").tolist() == [2, 5]
        assert np.array_equal(after.masks([5, 2], "lung"), before.masks([5, 2], "lung"))
    else:
        drawn = {row: {*group} for row, group in new.boxes().groupby("row")["name"]}
        assert [{*names} for names in after.lists("annotated", range(len(after)))] == [
            drawn.get(row, set()) for row in range(len(after))
        ]
        assert (after.mask_names, after.uncertain_as) == ([], {})
    main(["prepare", "--upgrade", str(folder)])
    assert "is of format 3 already; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("stop_at", range(8))
def test_interrupted_anywhere_it_is_whole(older, tiny_corpus, monkeypatch, stop_at):
    """Stopped in the middle of each table, before ``corpus.json``, and while the old tables go."""
    new, folder = PreparedCorpus.open(tiny_corpus), older(2)
    calls = iter(range(100))

    def counted(function):
        def call(*args, **options):
            if next(calls) == stop_at:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(layout.TableWriter, "finish", counted(layout.TableWriter.finish))
        patch.setattr(upgrade, "write_json", counted(upgrade.write_json))
        patch.setattr(upgrade.Path, "unlink", counted(upgrade.Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            upgrade.upgrade(folder)
    same(PreparedCorpus.open(folder), new)
    upgrade.upgrade(folder, log=lambda _: None)
    same(PreparedCorpus.open(folder), new)
    assert not list(folder.glob("*.parquet"))


def test_upgraded_and_prepared_are_the_same_files(older, tiny_corpus):
    folder = older(2)
    upgrade.upgrade(folder, log=lambda _: None)
    for name in set(TABLES) - {"masks"}:
        assert (folder / f"{name}.arrow").read_bytes() == (tiny_corpus / f"{name}.arrow").read_bytes()
    assert len(Mapped.open(folder / "masks.arrow")) == 3


def test_refusals(tmp_path, older, monkeypatch):
    for arguments in ([], ["a", "b"]):
        with pytest.raises(SystemExit):
            main(["prepare", "--upgrade", *arguments])
    with pytest.raises(UserError, match="no prepared corpus at"):
        upgrade.upgrade(tmp_path / "nothing")
    folder = older(2)
    index = folder / "index.parquet"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        upgrade.upgrade(folder)
    assert index.exists()
