"""What every corpus reader promises, whichever it is; a new one is covered by its line in CORPORA."""

import dataclasses
import inspect

import pytest

from lingula.cli import main
from lingula.corpora import CORPORA


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
