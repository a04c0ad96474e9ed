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


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"prepare"}))
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
        (["list", "method"], "methods"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0


def test_list_as_json(capsys):
    _, out, _ = run(capsys, "list", "methods", "--json")
    described = json.loads(out)["cm-cgns"]
    assert described["options"]["mu"] == 3.0
    assert described["recipes"]["paper"]["learning_rate"] == 1e-5
