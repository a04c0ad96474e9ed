"""What every corpus reader promises, whichever it is.

A new one is covered by its line in CORPORA and by DOWNLOADS in its own tests: for each layout that it reads, a function
that writes a small download into a folder, and gives that folder or the reader's options. OPTIONAL names files that the
reader can do without.
"""

import contextlib
import dataclasses
import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from lingula.cli import main
from lingula.corpora import CORPORA
from lingula.data.preparation import prepare
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

READ = (".csv", ".gz", ".json", ".parquet", ".txt", ".xml", ".zip")  # what a fingerprint may read of a download


def own_tests(name: str) -> Any:
    """The module of a reader's own tests."""
    *room, module = CORPORA.paths[name].partition(":")[0].split(".")[2:]
    room += [module] if (Path(__file__).parent / module).is_dir() else []
    path = Path(__file__).parent.joinpath(*room, f"test_{module}.py")
    spec = importlib.util.spec_from_file_location(f"of_{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


TESTS = {name: own_tests(name) for name in CORPORA.paths}
LAYOUTS = [(name, layout) for name in TESTS for layout in TESTS[name].DOWNLOADS]


@pytest.fixture
def download(request, tmp_path):
    """A reader's class, the options of a small download, the files of it that count, and which of them may lack."""
    name, layout = request.param
    folder = tmp_path / "download"
    folder.mkdir()
    options = TESTS[name].DOWNLOADS[layout](folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix in READ)
    optional = getattr(TESTS[name], "OPTIONAL", [])
    return name, options if isinstance(options, dict) else {"root": options}, files, optional


each_download = pytest.mark.parametrize("download", LAYOUTS, ids=" ".join, indirect=True)


def others(reader: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Another value of every option that is a number, a choice, or true or false."""
    hints = get_type_hints(reader.__init__)
    changed = {}
    for field in dataclasses.fields(reader):
        value = options.get(field.name, field.default)
        if get_origin(hints[field.name]) is Literal:
            changed[field.name] = next(word for word in get_args(hints[field.name]) if word != value)
        elif isinstance(value, bool):
            changed[field.name] = not value
        elif isinstance(value, int):
            changed[field.name] = value + 1
    return changed


@pytest.mark.parametrize("name", list(CORPORA))
def test_it_is_a_documented_dataclass_that_the_command_line_reads(name, capsys):
    reader = CORPORA[name]
    assert dataclasses.is_dataclass(reader)
    assert hasattr(reader, "name")
    assert hasattr(reader, "licence")
    assert inspect.isgeneratorfunction(reader.studies)
    assert callable(reader.fingerprint)
    document = reader.__doc__
    for field in dataclasses.fields(reader):
        assert f"{field.name}:" in document, f"{name}: the docstring says nothing of '{field.name}'"
    with pytest.raises(SystemExit) as stop:
        main(["prepare", name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(reader):
        assert f"--{field.name}" in shown


@each_download
def test_the_fingerprint_follows_the_options_the_files_and_the_rules(download, monkeypatch):
    name, options, files, _ = download
    reader = CORPORA[name]
    first = reader(**options).fingerprint()
    assert reader(**options).fingerprint() == first
    for option, value in others(reader, options).items():
        with contextlib.suppress(UserError):  # another choice may want files that are not there
            assert reader(**{**options, option: value}).fingerprint() != first, option
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        assert reader(**options).fingerprint() != first, file.name
        file.write_bytes(content)
    assert reader(**options).fingerprint() == first
    if hasattr(reader(**options), "reading"):
        monkeypatch.setattr("lingula.data.reports.RULES", 0)  # the same reports read by other rules
        assert reader(**options).fingerprint() != first


@each_download
def test_what_is_missing_is_named_with_where_to_get_it(download, tmp_path):
    name, options, files, optional = download
    reader = CORPORA[name]
    place = next((option for option in ("root", "source") if option in options), None)
    if place is None:
        pytest.skip("the reader has no folder of a download")
    for folder, message in ((tmp_path / "nowhere", "no folder at"), (tmp_path / "empty", r"come.* from .*http")):
        if folder.name == "empty":
            folder.mkdir()
        for attempt in (lambda one: list(one.studies()), lambda one: one.fingerprint()):
            with pytest.raises(UserError, match=message):
                attempt(reader(**{**options, place: folder}))
    for file in files:
        content = file.read_bytes()
        file.unlink()
        if any(file.match(pattern) for pattern in optional):
            reader(**options).fingerprint()
        else:
            with pytest.raises(UserError, match=r"^no .*(comes? from .|expected .*http)"):
                list(reader(**options).studies())
        file.write_bytes(content)


@each_download
def test_it_is_prepared_from_the_command_line(download, tmp_path, capsys):
    name, options, _, _ = download
    reader = CORPORA[name](**options)
    rows = list(reader.studies())
    words = []
    for option, value in options.items():
        words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    out = tmp_path / "prepared"
    main(["prepare", name, *words, "--out", str(out), "--size", "16", "--workers", "0", "--skip_bad_rows"])
    meta = json.loads((out / "corpus.json").read_text())
    assert (meta["name"], meta["licence"]) == (reader.name, reader.licence)
    for about in ("label_groups", "uncertain_as", "unknown_as"):
        assert meta[about] == getattr(reader, about, {})
    ours = [row for row in rows if isinstance(row, Study)]
    assert sum(meta["studies"].values()) == len(ours)
    assert sum(meta["left_out"].values()) == sum(isinstance(row, LeftOut) for row in rows)
    assert set(meta["label_names"]) == {label for study in ours for label in study.labels}
    assert f"prepared {len(ours):,} studies" in capsys.readouterr().out


@each_download
def test_a_film_that_is_missing_stops_a_preparation(download, tmp_path):
    name, options, _, _ = download
    reader = CORPORA[name](**options)
    study = next((row for row in reader.studies() if isinstance(row, Study)), None)
    if study is None or not isinstance(study.image, Path):
        pytest.skip("its films are drawn")
    study.image.unlink()
    if study.row not in {row.row for row in CORPORA[name](**options).studies()}:
        pytest.skip("it reads the films that are there")
    with pytest.raises(UserError, match="missing image file") as error:
        prepare(CORPORA[name](**options), tmp_path / "out", size=8, workers=0, log=lambda line: None)
    assert study.row in str(error.value)
    assert study.image.name in str(error.value)
