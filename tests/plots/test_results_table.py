from lingula.plots.results_table import in_words, result_tables


def test_results_of_another_checkpoint_are_counted_not_shown():
    rows = [
        {
            "task": "classification",
            "encoder": "random",
            "checkpoint": "random-0",
            "fraction": 0.1,
            "seed": 0,
            "auroc": 0.6,
        },
        {"task": "classification", "encoder": "cm-cgns", "checkpoint": "old", "fraction": 0.1, "seed": 0, "auroc": 0.7},
        {"task": "classification", "encoder": "cm-cgns", "checkpoint": "new", "fraction": 0.1, "seed": 0, "auroc": 0.8},
        {"task": "classification", "encoder": "cm-cgns", "checkpoint": "new", "fraction": 0.1, "seed": 0, "auroc": 0.9},
        {"task": "pointing", "encoder": "cm-cgns", "checkpoint": "new", "value": 0.5, "chance": None},
        {"task": "gone", "encoder": "cm-cgns", "checkpoint": "old", "value": 0.5},
    ]
    probe, pointing = result_tables(rows, "new")
    assert probe.columns == ["encoder", "fraction", "seed", "auroc"]
    assert probe.rows == [["cm-cgns", "10%", "0", "0.900"], ["random", "10%", "0", "0.600"]]  # the last of two counts
    assert probe.left_out == 1
    assert (pointing.columns, pointing.rows) == (["", "cm-cgns"], [["value", "0.500"]])


def test_an_interval_stands_in_its_numbers_cell_and_other_options_are_another_measurement():
    row = {"task": "grounding", "encoder": "cm-cgns", "checkpoint": "new", "cnr": 0.2, "cnr_low": 0.1, "cnr_high": 0.35}
    empty = {"miou": 0.5, "miou_low": None, "miou_high": None, "bits_low": 1.5}
    (table,) = result_tables([{**row, **empty, "options": {"split": "val"}}, {**row, "options": {}}], "new")
    assert table.columns == ["", "cm-cgns", "cm-cgns"]
    assert table.rows == [
        ["cnr", "0.200 (0.100–0.350)", "0.200 (0.100–0.350)"],
        ["miou", "0.500", "–"],
        ["bits_low", "1.500", "–"],  # the end of nothing
    ]


def test_numbers_in_words():
    assert [in_words(value) for value in (None, 200.0, 0.25, 1.0, "x", 3)] == ["–", "200", "0.250", "1.000", "x", "3"]


def test_what_a_reader_must_be_told_stands_below_a_table_once():
    row = {"task": "zero-shot", "encoder": "clip", "checkpoint": "a", "auroc": 0.5, "labels": ["x", "y"]}
    rows = [{**row, "remarks": ["few patients"]}, {**row, "encoder": "random", "remarks": ["few patients", "no words"]}]
    (table,) = result_tables(rows, "a")
    assert table.notes == ["labels: x, y", "few patients", "no words"]
    (table,) = result_tables([{"task": "retrieval", "encoder": "clip", "checkpoint": "a", "recall": 0.5}], "a")
    assert table.notes == []
