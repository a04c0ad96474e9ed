"""The command line: quick, and one clear line for what is wrong."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lingula.cli import COMMANDS, main
from lingula.methods import METHODS


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of a call in this process."""
    try:
        main(list(arguments))
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command_and_imports_nothing_heavy():
    script = (
        "import sys; from lingula.cli import main; main(['--help']); main(['list', 'methods']); "
        "heavy = 'torch transformers timm lightning sklearn pandas cv2 matplotlib'.split(); "
        "loaded = set(heavy) & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    assert "cm-cgns" in done.stdout


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_help_of_a_command_imports_nothing_heavy(command):
    """jsonargparse runs the ``if TYPE_CHECKING`` imports of a command's module when it reads the annotations."""
    script = (
        "import sys; from lingula.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = 'torch transformers timm lightning sklearn pandas cv2 matplotlib'.split()\n"
        "loaded = set(heavy) & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: lingula")


def pages():
    """Every page of help there is."""
    yield []
    for name in COMMANDS:
        yield [name]
        for choice in getattr(COMMANDS[name], "choices", ()):
            yield [name, choice]


@pytest.mark.parametrize("arguments", pages(), ids=" ".join)
def test_every_page_of_help_is_in_words_and_fits(capsys, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, *arguments, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: lingula")
    for foreign in ("<class", "Optional", "Literal", "Union", "null", "SUPPRESS", "``", "type:", "typing"):
        assert foreign not in out
    assert max(map(len, out.splitlines())) <= 80
    assert (code, out) == run(capsys, "help", *arguments)[:2]
    if len(arguments) == 2 or (arguments and not hasattr(COMMANDS[arguments[0]], "choices")):
        assert run(capsys, *arguments, "-h")[1] == out
        assert "--print_config" in out


def test_help_marks_what_is_required_and_shows_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, "evaluate", "detection", "--help")
    assert "usage: lingula evaluate detection --targets NAME ... --run FOLDER [options]" in out
    required, _, rest = out.partition("required:\n")[2].partition("\n\n")
    assert [line.split()[0] for line in required.splitlines() if line.startswith("  --")] == ["--targets", "--run"]
    assert "--fractions NUMBER ...\n" in rest
    assert "shares of the training patients. (default: 0.01 0.1 1)" in rest
    assert "options of detection:" in rest
    assert "options of lingula evaluate:" in rest


def test_a_command_without_its_choice_shows_the_choices_and_fails(capsys):
    for name in ("prepare", "evaluate"):
        code, out, err = run(capsys, name)
        assert (code, out) == (2, "")
        assert all(choice in err for choice in COMMANDS[name].choices)


def test_the_version_and_the_overview(capsys):
    assert run(capsys, "--version") == run(capsys, "-V")
    assert run(capsys)[1] == run(capsys, "--help")[1] == run(capsys, "-h")[1] == run(capsys, "help")[1]
    assert "For research use only" in run(capsys)[1]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')",
         "lingula: the package 'cv2' is not installed; run: pip install opencv-python-headless"),
        ("raise ModuleNotFoundError(\"No module named 'faster_coco_eval'\", name='faster_coco_eval.core')",
         "lingula: the package 'faster_coco_eval' does not load"),
        ("import no_such_package_of_ours",
         "lingula: the package 'no_such_package_of_ours' is not installed; run: pip install no-such-package-of-ours"),
        ("try:\n    import no_such_package\nexcept ImportError as err:\n    raise ImportError('lazy') from err",
         "lingula: the package 'no_such_package' is not installed; run: pip install no-such-package"),
        ("raise ImportError('libtorch.so: undefined symbol', name='torch._C')",
         "lingula: the package 'torch' does not load (libtorch.so: undefined symbol); run: pip install torch "
         "--force-reinstall"),
        ("raise KeyboardInterrupt", "lingula: interrupted"),
    ],
)  # fmt: skip
def test_a_missing_package_is_one_line_with_the_way_out(capsys, monkeypatch, broken, said):
    def command() -> None:
        """A command."""
        exec(broken)

    monkeypatch.setattr("lingula.commands.list.list_parts", command)
    code, _, err = run(capsys, "list")
    assert code == (130 if "Keyboard" in broken else 2)
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_module_of_ours_that_is_missing_is_our_mistake(capsys, monkeypatch):
    def command() -> None:
        """A command."""
        import lingula.no_such_module  # noqa: F401

    monkeypatch.setattr("lingula.commands.list.list_parts", command)
    with pytest.raises(ModuleNotFoundError, match=r"lingula\.no_such_module"):
        run(capsys, "list")


def test_a_reader_that_has_had_enough_is_no_error():
    """As `lingula list methods | head -1`, with a pipe that is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    script = "from lingula.cli import main; main(['list', 'methods'])"
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("name", METHODS)
def test_the_printed_configuration_of_pretrain_is_the_recipe_and_makes_the_same_run(capsys, name, tmp_path):
    from lingula.records import plain
    from lingula.runs.recipes import INSTEAD, recipe_of, resolve

    for recipe in METHODS[name].recipes:
        code, printed, err = run(capsys, "pretrain", "--method", name, "--recipe", recipe, "--print_config")
        assert code == 0, err
        options = yaml.safe_load(printed)
        assert options["batch_size"] == METHODS[name].recipes[recipe].batch_size
        assert options["epochs"] == [stage.epochs for stage in METHODS[name].recipes[recipe].stages]
        given = {option: options[option] for option in INSTEAD}
        expected = dataclasses.asdict(recipe_of(name, recipe))
        again = resolve(recipe_of(name, recipe), given, options["epochs"], options["options"], options["weights"])
        assert plain(dataclasses.asdict(again)) == plain(expected)
        file = tmp_path / f"{recipe}.yaml"
        file.write_text(printed.replace("corpus: null", "corpus: c").replace("out: null", "out: o"))
        assert run(capsys, "pretrain", "--config", str(file), "--print_config")[1] == file.read_text()


def test_a_printed_configuration_is_read_again(capsys, tmp_path):
    arguments = ["pretrain", "--corpus", "c", "--out", "o", "--options.mu", "5", "--epochs", "[1, 2]"]
    _, first, _ = run(capsys, *arguments, "--print_config")
    (tmp_path / "config.yaml").write_text(first)
    _, again, _ = run(capsys, "pretrain", "--config", str(tmp_path / "config.yaml"), "--print_config")
    assert again == first
    assert "mu: 5" in first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian"], "unknown command 'pretrian'; did you mean 'pretrain'?"),
        (["pretrain", "--corpus", "x", "--out", "y", "--method", "cmcgns"],
         "unknown method 'cmcgns'; did you mean 'cm-cgns'?"),
        (["pretrain", "--corpus", "x", "--out", "y", "--batchsize", "4"],
         "unknown option '--batchsize'; did you mean '--batch_size'?"),
        (["pretrain", "--corpus", "nowhere", "--out", "y", "--recipe", "scratch"], "no prepared corpus at nowhere"),
        (["pretrain", "--corpus", "x", "--out", "y", "--batch_size", "many"], "batch_size"),
        (["prepare", "sintetic"], "unknown corpus 'sintetic'; did you mean 'synthetic'?"),
        (["prepare", "synthetic", "--train", "-1", "--out", "x"], "train"),
        (["evaluate", "clasification", "--run", "x"], "classification"),
        (["evaluate", "classification", "--run", "nowhere"], "no run at nowhere"),
        (["evaluate", "segmentation", "--run", "x"], "missing: --target"),
        (["benchmark"], "missing: FILE"),
        (["list"], "lingula list: missing: one of methods, corpora, tasks"),
        (["list", "method"], "expected one of methods, corpora, tasks, got 'method'; did you mean 'methods'?"),
        (["list", "methods", "corpora"], "'corpora' is one word too many"),
        (["evaluate", "--run", "x"], "name the task first: lingula evaluate TASK --run x ...; known: classification"),
        (["--verbose"], "unknown option '--verbose'"),
        (["--print_shell_completion", "fish"], "known: bash, zsh; got 'fish'"),
        (["help", "pretrian"], "unknown command 'pretrian'; did you mean 'pretrain'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrain --batch_size abc", "--batch_size: expected a whole number, got 'abc'"),
        ("pretrain --batch_size 1.5", "--batch_size: expected a whole number, got '1.5'"),
        ("pretrain --seed x", "--seed: expected a whole number, got 'x'"),
        ("pretrain --learning_rate fast", "--learning_rate: expected a number, got 'fast'"),
        ("pretrain --epochs 1 many", "--epochs: expected a number, got 'many'"),
        ("pretrain --resume maybe", "--resume: expected true or false, got 'maybe'"),
        ("pretrain --pretrained maybe", "--pretrained: expected true or false, got 'maybe'"),
        ("pretrain --weights.image x", "--weights.image: expected a number, got 'x'"),
        ("pretrain --weights x", "--weights: expected names and values, got 'x'; write --weights.NAME VALUE"),
        ("pretrain --corpus", "--corpus needs a value: FOLDER"),
        ("evaluate classification --encoder frozn", "--encoder: expected frozen or finetuned, got 'frozn'; did you "
         "mean 'frozen'?"),
        ("evaluate classification --fractions a", "--fractions: expected a number, got 'a'"),
        ("evaluate classification --seeds 0 .5", "--seeds: expected a whole number, got '0.5'"),
        ("prepare csv --val_fraction x", "--val_fraction: expected a number, got 'x'"),
        ("pretrain --config nowhere.yaml", "--config: file does not exist: "),
        ("pretrain --config broken.yaml", "--config: not valid YAML (line 2, column 1)"),
        ("pretrain --config words.yaml", "--config: expected lines of the form `option: value`, got 'just words'"),
        ("pretrain --config unknown.yaml", "unknown option 'batch_sise'; did you mean 'batch_size'?"),
        ("pretrain --config kind.yaml", "--batch_size: expected a whole number, got 'x'"),
        ("pretrain --config inner.yaml", "--weights: expected a number, got 'x'"),
        ("evaluate classification --config list.yaml", "--fractions: expected a list of numbers, got '0.1'"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_named_in_plain_words(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("broken", "a: [\n"),
        ("words", "just words\n"),
        ("unknown", "batch_sise: 3\n"),
        ("kind", "batch_size: x\n"),
        ("inner", "weights: {image: x}\n"),
        ("list", "fractions: 0.1\n"),
    ):
        Path(f"{name}.yaml").write_text(text)
    code, out, err = run(capsys, *arguments.split())
    command = "lingula " + arguments.partition(" --")[0]
    assert code == 2
    assert out == ""
    assert err.startswith(f"{command}: {message}")
    assert err.count("\n") == 1
    assert "class" not in err.replace("classification", "").replace(command, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--batch_size 0", "batch_size must be 1 or more, got 0"),
        ("--log_every 0", "log_every must be 1 or more, got 0"),
        ("--accumulate -1", "accumulate must be 1 or more, got -1"),
        ("--checkpoint_every 0", "checkpoint_every must be 1 or more, got 0"),
        ("--vocabulary 0", "vocabulary must be 1 or more, got 0"),
        ("--devices 0", "devices must be 1 or more, got 0"),
        ("--nodes 0", "nodes must be 1 or more, got 0"),
        ("--seed -1", "seed must be from 0 to 4294967295, got -1"),
        ("--accelerator cudda", "unknown accelerator 'cudda'; did you mean 'cuda'?"),
        ("--precision bf16", "unknown precision 'bf16'; did you mean 'bf16-mixed'?"),
        (
            '--weights {"global":0,"report":0,"margin":0,"image":0}',
            "stage 1 has nothing to train: all its loss weights are 0",
        ),
        ("--weights.image -1", "weights.image must be 0 or more, got -1"),
        ("--learning_rate 0", "learning_rate must be above 0, got 0"),
        ("--weight_decay -1", "weight_decay must be 0 or more, got -1"),
        ("--clip 0", "clip must be above 0, got 0"),
        ("--epochs -1 1", "epochs must be 0 or more, got -1.0 for stage 1"),
        ("--epochs 0 0", "nothing to train: all epochs are 0"),
        ("--image_size 8", "image_size must be 16 pixels or more, got 8"),
        ("--image_size 64 --resize_to 48", "resize_to must be image_size (64) or more, got 48"),
        ("--options.mask_false_negatives maybe", "option 'mask_false_negatives' must be true or false, got 'maybe'"),
        ("--options.dim wide", "option 'dim' must be a whole number, got 'wide'"),
    ],
)
def test_bad_numbers_and_names_of_pretrain(capsys, options, message, tmp_path):
    out = tmp_path / "run"
    code, _, err = run(
        capsys, "pretrain", "--corpus", "nowhere", "--out", str(out), "--recipe", "scratch", *options.split()
    )
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--options.temperature_local 0", "temperature"),
        ("--options.temperature_global -1", "temperature"),
        ("--epochs 0.01 0", "nothing to train: the epochs come to no step"),
        ("--batch_size 4000", "do not fill one batch of 4000"),
        ('--options.hard_negatives none --weights {"global":0,"report":0,"image":0}', "nothing to train: no gradient"),
    ],
)
def test_bad_values_that_show_only_when_building(capsys, options, message, tiny_corpus, tmp_path):
    code, _, err = run(
        capsys, "pretrain", "--corpus", str(tiny_corpus), "--out", str(tmp_path / "run"), "--recipe", "scratch",
        "--image_size", "32", "--batch_size", "8", "--options.dim", "32", "--options.decoder_widths", "[8,8]",
        "--accelerator", "cpu", "--quiet", *options.split(),
    )  # fmt: skip
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if not line.startswith("warning: 30 steps in all")]) == 1


def test_an_impossible_out(capsys, tiny_corpus, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        code, _, err = run(
            capsys, "pretrain", "--corpus", str(tiny_corpus), "--out", str(out), "--recipe", "scratch"
        )  # fmt: skip
        assert code == 2
        assert f"cannot make the folder {out}" in err
        assert err.strip().count("\n") == 0


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU")
def test_an_accelerator_that_is_not_there(capsys, tiny_corpus, tmp_path):
    code, _, err = run(
        capsys, "pretrain", "--corpus", str(tiny_corpus), "--out", str(tmp_path / "run"), "--recipe", "scratch",
        "--accelerator", "cuda",
    )  # fmt: skip
    assert code == 2
    assert "accelerator 'cuda' with 1 devices" in err
    assert err.strip().count("\n") == 0


def test_list_as_json(capsys):
    _, out, _ = run(capsys, "list", "methods", "--json")
    described = json.loads(out)["cm-cgns"]
    assert described["options"]["mu"] == 3.0
    assert described["recipes"]["paper"]["learning_rate"] == 1e-5
