"""The command line: quick, and one clear line for what is wrong."""

import json
import subprocess
import sys

import pytest

from lingula.cli import COMMANDS, main


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


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"prepare", "evaluate"}))
def test_every_command_has_help_from_its_docstring_and_prints_its_configuration(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert (COMMANDS[command].__doc__ or "").splitlines()[0].split()[0] in out
    assert "--print_config" in out


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
        (["benchmark"], "missing: file"),
        (["list", "method"], "methods"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0


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
