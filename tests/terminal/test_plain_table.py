"""Plain tables: nothing is cut off, whatever the width."""

import random

import pytest

from lingula.terminal.plain_table import print_table, table


def written(lines):
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def test_a_table_that_fits_stands_in_one_piece():
    lines = written(table("probe", ["metric", "ours (n = 3)"], [[("auroc", ""), ("0.871 ± 0.004", "bold")]], 80))
    assert lines == ["probe", "metric  ours (n = 3)", "------  -------------", "auroc   0.871 ± 0.004", ""]


@pytest.mark.parametrize("seed", range(20))
def test_no_name_or_number_is_ever_cut_and_lines_fit_where_two_columns_do(seed):
    rng = random.Random(seed)
    columns, rows = rng.randint(2, 9), rng.randint(1, 5)
    words = [f"{rng.random():.3f} ± {rng.random():.3f}" + " (nan)" * rng.randint(0, 1) for _ in range(columns * rows)]
    names = [f"method-{'x' * rng.randint(0, 20)}-{n}" for n in range(rows)]
    body = [[(name, ""), *((words[n * columns + c], "") for c in range(columns))] for n, name in enumerate(names)]
    heading = ["method", *(f"corpus {c} (auroc)" for c in range(columns))]
    lines = written(table("T", heading, body, 80))
    assert max(map(len, lines)) <= 80
    for n, name in enumerate(names):  # every number stands in a line of its method, once
        own = " ".join(line for line in lines if line.startswith(f"{name} "))
        assert sorted(own.replace(name, "").split()) == sorted(" ".join(words[n * columns : (n + 1) * columns]).split())
    assert " ".join(lines).count("(auroc)") == columns


def test_a_part_leaves_out_lines_that_are_empty_in_it():
    body = [[("a", ""), ("1" * 12, ""), ("", "")], [("b", ""), ("2" * 12, ""), ("3" * 12, "")]]
    lines = written(table("T", ["x", "y", "z"], body, 20))
    assert [line for line in lines if line.startswith(("a ", "b "))] == [
        "a  " + "1" * 12,
        "b  " + "2" * 12,
        "b  " + "3" * 12,
    ]


def test_what_looks_like_markup_is_printed_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    long = "a [red]name[/red] of more than twenty letters"
    print_table("T [1]", ["x", "y"], [[long, ("1", "bold")]])
    out = capsys.readouterr().out
    assert long in out
    assert "T [1]" in out
