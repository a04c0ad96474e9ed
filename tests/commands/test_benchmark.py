"""``lingula benchmark``: the same table however often it was interrupted, and tables that say what they show."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml

from lingula.benchmarking import tables as _tables
from lingula.benchmarking.cells import Store, Weights
from lingula.benchmarking.plan import Entry, Method, Plan, make_task, read_plan
from lingula.cli import main
from lingula.commands.benchmark import benchmark
from lingula.commands.evaluate import evaluate
from lingula.commands.pretrain import pretrain
from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.statistics import summarise
from lingula.evaluation.task import Cell
from lingula.registry import UserError
from lingula.runs.model import load
from lingula.tasks.classification import Classification
from lingula.tasks.retrieval import Retrieval


def plan_of(run, corpus, **changes):
    classification = {"labels": ["effusion", "cardiomegaly"], "protocol": "logistic", "fractions": [0.5, 1.0]}
    plan = {
        "seeds": [0, 1],
        "bootstrap": 30,
        "methods": {"CM-CGNS": {"run": str(run)}, "Random Init.": {"init": "random", "like": "CM-CGNS"}},
        "tasks": [
            {"task": "classification", "corpus": str(corpus), "options": classification, "name": "Phantoms"},
            {"task": "retrieval", "corpus": str(corpus), "options": {"pool": 8}},
        ],
    }
    return {**plan, **changes}


@pytest.fixture
def write(tmp_path, tiny_run, tiny_corpus):
    """A function that writes the plan, with changes, and returns its file."""

    def write(name="bench", **changes):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(plan_of(tiny_run, tiny_corpus, **changes), sort_keys=False))
        return file

    return write


CELLS = 3 + 2 * 2 + 1 + 2  # a regression has nothing to draw with all labels; each random encoder has


def test_a_benchmark_interrupted_anywhere_gives_the_same_tables(write, monkeypatch, capsys):
    whole = write("whole")
    benchmark(whole)
    expected = (whole.with_suffix("") / "tables.md").read_text()
    assert len(list((whole.with_suffix("") / "cells").glob("*.json"))) == CELLS
    measured = []
    real = Store._write
    stop_at = 0

    def stopping(self, cell, found, seconds):
        measured.append(cell)
        if len(measured) == stop_at:
            raise KeyboardInterrupt
        real(self, cell, found, seconds)

    monkeypatch.setattr(Store, "_write", stopping)
    file = write("halting")
    for stop in (1, 3, 2):  # of what is left
        measured.clear()
        stop_at = stop
        with pytest.raises(KeyboardInterrupt):
            benchmark(file)
    measured.clear()
    stop_at = 0
    benchmark(file)
    assert len(measured) == CELLS - 0 - 2 - 1
    assert (file.with_suffix("") / "tables.md").read_text() == expected
    measured.clear()
    benchmark(file)
    assert not measured
    assert (file.with_suffix("") / "tables.md").read_text() == expected
    out = file.with_suffix("") / "cells"
    assert {p.stem for p in out.glob("*.json")} == {p.stem for p in (whole.with_suffix("") / "cells").glob("*.json")}
    assert list((file.with_suffix("") / "subsets").glob("*.txt"))


def test_the_tables_say_what_was_measured(write, capsys):
    file = write()
    tables = benchmark(file)
    shown = capsys.readouterr().out
    assert "Table I: linear classification" in shown
    assert "Random Init." in shown
    text = (file.with_suffix("") / "tables.md").read_text()
    classification, retrieval = tables
    assert [(c.title, c.share, c.metric) for c in classification.columns] == [
        ("Phantoms", "50%", "auroc"),
        ("Phantoms", "100%", "auroc"),
    ]
    assert [c.metric for c in retrieval.columns] == ["recall_at_5", "recall_at_1", "recall_at_10"]
    for column in classification.columns:
        means = {name: summarise(cells, "auroc") for name, cells in column.cells.items()}
        best = max(means, key=lambda name: means[name].mean)
        sd = "" if means[best].sd is None else f" ± {100 * means[best].sd:.2f}"
        assert f"**{100 * means[best].mean:.2f}{sd}**" in text
        assert column.paper == {}
    assert [len(c.cells["CM-CGNS"]) for c in classification.columns] == [2, 1]
    assert [len(c.cells["Random Init."]) for c in classification.columns] == [2, 2]
    assert text.count("p = ") == 5
    main(["benchmark", str(file), "--tables_only"])
    assert (file.with_suffix("") / "tables.md").read_text() == text


def untrained(base, checkpoint="random-0", trained=False):
    return Weights("random", checkpoint, trained, base, (0,), lambda corpus: base)


def test_other_settings_are_other_cells(tiny_run, tiny_corpus, tmp_path, monkeypatch):
    corpus = PreparedCorpus.open(tiny_corpus)

    def path(checkpoint="a" * 64, labels=("effusion",), cell=Cell(0.5, 0), draws=10, fractions=(0.5,)):
        task = Classification(list(labels), fractions=list(fractions))
        return Store(Path("cells"), "m", untrained(None, checkpoint, True), task, corpus, draws).path(cell).name

    base = path()
    others = [path("b" * 64), path(labels=["nodule"]), path(cell=Cell(1.0, 0)), path(cell=Cell(0.5, 1)), path(draws=20)]
    assert len({base, *others}) == 6
    assert path(fractions=[0.5, 1.0]) == base  # another list of fractions measures the same cell
    prompts = tmp_path / "prompts.yaml"

    def path_of_prompts(text):
        prompts.write_text(text)
        task = make_task(Entry("zero-shot", tiny_corpus, {"labels": ["nodule"], "prompts": str(prompts)}))
        return Store(Path("cells"), "m", untrained(None, "a" * 64, True), task, corpus, 10).path(Cell())

    assert path_of_prompts("nodule: [a nodule]") != path_of_prompts("nodule: [one nodule]")  # the same file's name
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "version", 2, raising=False)
        assert path() not in {base, *others}  # cells of an earlier way to measure are not taken for new ones


def test_random_text_encoders_of_other_words_are_others_where_text_is_read(tiny_run, tiny_corpus):
    corpus, model = PreparedCorpus.open(tiny_corpus), load(tiny_run)
    other = copy.copy(model)
    other.tokenizer = copy.deepcopy(model.tokenizer)
    other.tokenizer.add_tokens(["a-word-of-its-own"])

    def path(base, task):
        return Store(Path("cells"), "m", untrained(base), task, corpus, 10).path(Cell())

    assert path(model, Retrieval()) == path(load(tiny_run), Retrieval())
    assert path(model, Retrieval()) != path(other, Retrieval())
    assert path(model, Classification(["nodule"])) == path(other, Classification(["nodule"]))


def test_a_run_that_was_moved_has_the_cells_that_it_had(tiny_run, tiny_corpus, tmp_path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    corpus, task = PreparedCorpus.open(tiny_corpus), Retrieval()
    runs = (tiny_run, tmp_path / "moved", Path("moved"))
    paths = {Store(Path("cells"), "m", untrained(load(run)), task, corpus, 10).path(Cell()) for run in runs}
    assert len(paths) == 1


def test_nothing_is_built_again_for_cells_that_are_there(write, monkeypatch):
    file = write()
    benchmark(file)
    rows = (file.with_suffix("") / "results.jsonl").read_text()
    assert rows.count("\n") == CELLS
    assert all(name in rows for name in ("test_sha256", "checkpoint", "subset_sha256", "command", '"protocol"'))
    monkeypatch.setattr("lingula.runs.model.fresh", lambda *_: pytest.fail("built random encoders for nothing"))
    benchmark(file)
    assert (file.with_suffix("") / "results.jsonl").read_text() == rows


def test_a_cell_that_was_cut_off_is_measured_again(write, capsys):
    file = write()
    benchmark(file)
    expected = (file.with_suffix("") / "tables.md").read_text()
    cells = sorted((file.with_suffix("") / "cells").glob("*.json"))
    cells[0].write_text(cells[0].read_text()[:40])
    cells[1].with_suffix(".npz").write_bytes(b"")
    cells[2].with_suffix(".npz").write_bytes(cells[3].with_suffix(".npz").read_bytes()[:100])
    capsys.readouterr()
    benchmark(file)
    assert capsys.readouterr().err.count(" on synthetic") == 3
    assert (file.with_suffix("") / "tables.md").read_text() == expected
    assert not [path for path in file.with_suffix("").rglob("*") if "partial" in path.name]


def test_another_preparation_of_the_corpus_trained_on_is_told_of(write, tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    made = json.loads((run / "run.json").read_text())
    made["corpus"]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(made))
    file = write(methods={"CM-CGNS": {"run": str(run)}}, seeds=[0])
    benchmark(file)
    assert "may have been trained on" in capsys.readouterr().err


def test_a_method_is_trained_where_it_is_to_be_and_not_again(write, tiny_corpus, tmp_path):
    settings = {"corpus": str(tiny_corpus), "method": "cm-cgns", "recipe": "scratch", "image_size": 48, "batch_size": 8}
    settings |= {"options": {"dim": 32, "decoder_widths": [8, 8]}, "epochs": [0.4, 0.0], "quiet": True}
    task = {"task": "retrieval", "corpus": str(tiny_corpus), "options": {"pool": 8}}
    methods = {"Random": {"init": "random", "like": "Ours"}, "Ours": {"pretrain": settings}}  # like one yet to come
    file = write("training", methods={**methods, "Later": {"pretrain": settings}}, tasks=[task], seeds=[0])
    with pytest.raises(UserError, match="holds no cell"):
        benchmark(file, tables_only=True)
    file = write("training", methods=methods, tasks=[task], seeds=[0])
    benchmark(file)
    run = tmp_path / "training" / "runs" / "ours"
    made = (run / "run.json").read_text()
    benchmark(file)
    assert (run / "run.json").read_text() == made
    file = write("training", methods={**methods, "Later": {"pretrain": settings}}, tasks=[task], seeds=[0])
    (table,) = benchmark(file, tables_only=True)  # the later one has no run yet, and no number
    assert [len(cells) for cells in table.columns[0].cells.values()] == [1, 1, 0]


def test_a_method_is_pretrained_with_each_seed_and_each_run_measured_with_its_own(write, tiny_corpus, tmp_path):
    settings = {"corpus": str(tiny_corpus), "method": "clip", "recipe": "scratch", "image_size": 48, "batch_size": 8}
    settings |= {"options": {"dim": 16}, "epochs": [0.4], "quiet": True}
    classification = {"labels": ["effusion", "cardiomegaly"], "protocol": "logistic", "fractions": [0.5]}
    tasks = [
        {"task": "retrieval", "corpus": str(tiny_corpus), "options": {"pool": 8}},
        {"task": "classification", "corpus": str(tiny_corpus), "options": classification},
    ]
    methods = {
        "Random": {"init": "random", "like": "CLIP"},
        "CLIP": {"pretrain": settings, "each_seed": True},
    }
    file = write("each", methods=methods, tasks=tasks, seeds=[3, 5])
    tables = benchmark(file)
    runs = {seed: tmp_path / "each" / "runs" / f"clip-{seed}" for seed in (3, 5)}
    assert [json.loads((run / "run.json").read_text())["seed"] for run in runs.values()] == [3, 5]
    rows = [json.loads(line) for line in (tmp_path / "each" / "results.jsonl").read_text().splitlines()]
    checkpoints = {seed: load(run).checkpoint for seed, run in runs.items()}
    own = [row for row in rows if row["method"] == "CLIP" and row["task"] == "classification"]
    assert {row["seed"]: row["checkpoint"] for row in own} == checkpoints
    retrieved = [row["checkpoint"] for row in rows if row["method"] == "CLIP" and row["task"] == "retrieval"]
    assert retrieved == list(checkpoints.values())
    for table in tables:
        assert [len(cells) for cells in table.columns[0].cells.values()] == [2, 2]
        assert "2 pre-trainings a method, each with its own seed" in _tables.notes(table)[0]


def test_two_processes_share_one_file(write, capsys):
    """Each with its own methods; the tables of the second are those of one process alone."""
    whole = benchmark(write("whole"))
    file = write("shared")
    first = benchmark(file, only=["CM-CGNS"])
    assert [bool(cells) for cells in first[0].columns[0].cells.values()] == [True, False]
    second = benchmark(file, only=["Random Init."])
    assert _tables.markdown(second) == _tables.markdown(whole)
    with pytest.raises(UserError, match="the benchmark has no method 'CM-CGN'; did you mean 'CM-CGNS'"):
        benchmark(file, only=["CM-CGN"])


def test_a_method_of_films_alone_has_a_dash_where_text_is_read(write, tiny_run, tiny_corpus, tmp_path, capsys):
    settings = {"corpus": str(tiny_corpus), "method": "simsiam", "recipe": "scratch", "image_size": 48}
    settings |= {"batch_size": 8, "epochs": [0.4], "quiet": True}
    films = pretrain(out=tmp_path / "films", **settings)
    methods = {
        "CM-CGNS": {"run": str(tiny_run)},
        "SimSiam": {"run": str(films)},
        "Random": {"init": "random", "like": "SimSiam"},
    }
    classification, retrieval = benchmark(write("dash", methods=methods))
    assert [len(cells) for cells in classification.columns[0].cells.values()] == [2, 2, 2]
    assert [len(cells) for cells in retrieval.columns[0].cells.values()] == [1, 0, 0]
    _, body = _tables.lines(retrieval)
    assert [line[1][0] for line in body[1:3]] == ["–", "–"]
    with pytest.raises(UserError, match="Retrieval needs a method with a text encoder; 'simsiam' has none"):
        evaluate(Retrieval(), films)


def test_imagenets_weights_come_from_a_file(write, tiny_corpus, tmp_path):
    settings = {"corpus": str(tiny_corpus), "method": "simsiam", "recipe": "scratch", "image_size": 48}
    settings |= {"image_encoder": "resnet18", "batch_size": 8, "epochs": [0.4], "quiet": True}
    run = pretrain(out=tmp_path / "films", **settings)
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    imagenet = {"init": "imagenet", "like": "SimSiam", "weights": str(tmp_path / "resnet18.pth")}
    options = {"labels": ["effusion"], "protocol": "logistic", "fractions": [1.0]}
    tasks = [{"task": "classification", "corpus": str(tiny_corpus), "options": options}]
    methods = {"SimSiam": {"run": str(run)}, "Random": {"init": "random", "like": "SimSiam"}, "ImageNet": imagenet}

    def rows():
        benchmark(write("imagenet", methods=methods, tasks=tasks))
        return [json.loads(line) for line in (tmp_path / "imagenet" / "results.jsonl").read_text().splitlines()]

    found = rows()
    (own,) = {row["checkpoint"] for row in found if row["method"] == "ImageNet"}
    assert own.startswith("imagenet-")
    of_the_corpus = f"statistics of {len(PreparedCorpus.open(tiny_corpus).rows('train'))} train images"
    assert {(row["method"], row["input_normalisation"], row["batch_norm"]) for row in found} == {
        ("SimSiam", "mean 0.5, std 0.5", "its own statistics"),
        ("Random", "mean 0.5, std 0.5", of_the_corpus),
        ("ImageNet", "mean 0.485 0.456 0.406, std 0.229 0.224 0.225", of_the_corpus),
    }
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")  # others under the same name
    assert own not in {row["checkpoint"] for row in rows()}
    (tmp_path / "resnet18.pth").unlink()
    with pytest.raises(UserError, match=r"no weights of the image encoder 'resnet18' at .*resnet18.pth"):
        rows()


def test_a_baseline_that_is_used_otherwise_has_other_cells(tiny_run, tiny_corpus):
    corpus, model, task = PreparedCorpus.open(tiny_corpus), load(tiny_run), Classification(["nodule"])
    used = ({}, {"batch_norm": "its own"}, {"batch_norm": "of the corpus"})
    weights = [dataclasses.replace(untrained(model), conditions=conditions) for conditions in used]
    assert len({Store(Path("cells"), "m", of, task, corpus, 10).path(Cell()) for of in weights}) == 3


def test_there_is_no_imagenet_row_of_an_encoder_that_imagenet_never_trained(write, tiny_run):
    methods = {"CM-CGNS": {"run": str(tiny_run)}, "ImageNet": {"init": "imagenet", "like": "CM-CGNS"}}
    with pytest.raises(UserError, match="small_resnet is made here, and has no weights published"):
        benchmark(write("none", methods=methods))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "bad.yaml names no methods"),
        ({"methods": {"A": {"run": "x", "each_seed": True}}}, "each_seed goes with pretrain"),
        ({"methods": {"A": {"pretrain": {"seed": 1}, "each_seed": True}}}, "leave out seed"),
        ({"methods": {"A": {"pretrain": {}, "each_seed": "yes"}}}, "each_seed must be true or false, got 'yes'"),
        ({"methods": {"A": {"run": "x", "weights": "w"}}}, "weights goes with init imagenet"),
        ({"taks": []}, "unknown key 'taks'; did you mean 'tasks'"),
        ({"tasks": [{"task": "retrieval"}]}, "task 1 names no corpus"),
        ({"seeds": "all"}, "seeds must be a list of whole numbers from 0"),
        ({"seeds": [-1]}, "seeds must be a list of whole numbers from 0"),
        ({"seeds": [True]}, "seeds must be a list of whole numbers from 0"),
        ({"seeds": [1, 1]}, "a seed is named twice"),
        ({"methods": {"A b": {"pretrain": {}}, "a-B": {"pretrain": {}}}}, "'A b' and 'a-B' would be trained in one"),
        ({"bootstrap": 0}, "bootstrap must be a whole number from 1"),
        ({"methods": {"A": {}}}, "method 'A' needs one of run, pretrain and init, got none"),
        ({"methods": {"A": {"run": "x", "init": "random"}}}, "needs one of run, pretrain and init, got run and init"),
        ({"methods": {"A": {"init": "random"}}}, "like must name a method with a run"),
        ({"methods": {"A": {"init": "imagnet", "like": "A"}}}, "unknown init 'imagnet'"),
        ({"methods": {"A": {"run": "x", "like": "A"}}}, "like goes with init"),
        ({"methods": {"A": {"pretrain": {"out": "x"}}}}, "leave out out"),
        ({"methods": {"A": {"rnu": "x"}}}, "method 'A': unknown key 'rnu'; did you mean 'run'"),
        ({"methods": ["A"]}, r"methods must be a table, got \['A'\]"),
        ({"tasks": {"task": "retrieval"}}, "tasks must be a list"),
        ({"tasks": [{"task": "retrieval", "corpus": 3}]}, "task 1: corpus must be a word, got 3"),
        ({"tasks": [{"task": "retrieval", "corpus": "c", "options": [1]}]}, "task 1: options must be a table"),
        ({"methods": {"A": {"pretrain": "x"}}}, "method 'A': pretrain must be a table, got 'x'"),
        ({"methods": {"A": {"init": "random", "like": ["A"]}}}, "like must be a word"),
        ({"methods": {"A": "x"}}, "method 'A' must be a table of options, got str"),
    ],
)
def test_a_plan_that_makes_no_sense(write, changes, message):
    with pytest.raises(UserError, match=message):
        read_plan(write("bad", **changes))


def test_bad_files_tasks_and_corpora(write, tmp_path, tiny_corpus):
    with pytest.raises(UserError, match="cannot read the benchmark"):
        read_plan(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot read the benchmark"):
        read_plan(tmp_path / "broken.yaml")
    for task, message in (
        ({"task": "retreival"}, "unknown task 'retreival'; did you mean"),
        ({"task": "retrieval", "options": {"pol": 3}}, "no option 'pol'; did you mean 'pool'"),
        ({"task": "retrieval", "metrics": ["recal_at_5"]}, "no metric 'recal_at_5'; did you mean 'recall_at_5'"),
        ({"task": "segmentation"}, "task 'segmentation': .*target"),
        (
            {"task": "classification", "options": {"encoder": "fine-tuned"}},
            "encoder: expected .*'fine-tuned'; did you mean 'finetuned'",
        ),
        ({"task": "classification", "options": {"labels": "effusion"}}, "labels.*list.*effusion"),
        ({"task": "classification", "options": {"fractions": [1, 1.0]}}, "named twice"),
    ):
        with pytest.raises(UserError, match=message):
            benchmark(write("bad", tasks=[{"corpus": str(tiny_corpus), **task}]))
    with pytest.raises(UserError, match="no prepared corpus"):
        benchmark(write("bad", tasks=[{"task": "retrieval", "corpus": "nowhere"}]))
    with pytest.raises(UserError, match="holds no cell of"):
        benchmark(write("new"), tables_only=True)


# Tables ---------------------------------------------------------------------------------------------------------------


def test_plan_defaults(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("methods: {A: {run: r}}\ntasks: [{task: retrieval, corpus: c}]\n")
    assert read_plan(file) == Plan({"A": Method(run=Path("r"))}, [Entry("retrieval", Path("c"))])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "simsaim"}, "unknown method 'simsaim'; did you mean 'simsiam'"),
        ({"recipe": "scrach"}, "has no recipe 'scrach'; did you mean 'scratch'"),
        ({"epochs": 10}, "epochs must be a list, one number a stage, got 10"),
        ({"learning_rate": "1e-4"}, r"learning_rate must be a number \(1.0e-4, not 1e-4\), got '1e-4'"),
    ],
)
def test_options_of_pretrain_of_another_kind(write, tiny_corpus, options, words):
    good = {"corpus": str(tiny_corpus), "method": "simsiam", "recipe": "scratch"}
    settings = {**good, **options}
    task = {"task": "classification", "corpus": str(tiny_corpus)}
    with pytest.raises(UserError, match=words):
        benchmark(write("kinds", methods={"First": {"pretrain": good}, "A": {"pretrain": settings}}, tasks=[task]))
    assert not (write("kinds").with_suffix("") / "runs").exists()  # before anything is trained
