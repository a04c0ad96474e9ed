"""The completion script, in a real bash."""

import shutil
import subprocess

import pytest

from lingula.cli import COMMANDS
from lingula.corpora import CORPORA
from lingula.methods import METHODS
from lingula.terminal.completion import script


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """What bash offers for a line whose last word is being typed."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "lingula.sh").write_text(script(COMMANDS, "bash"))
    (folder / "table.csv").write_text("")
    (folder / "films").mkdir()

    def complete(*words):
        code = (
            'source lingula.sh; complete -p lingula >/dev/null || exit 9; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
            "_lingula; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        command = ["bash", "-c", code, "bash", "lingula", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pre"], ["prepare", "pretrain"]),
        (["prepare", "si"], ["siim-pneumothorax"]),
        (["prepare", "csv", "--image_"], ["--image_column", "--image_suffix"]),
        (["prepare", "csv", "--require_report", ""], ["true", "false"]),
        (["prepare", "csv", "--table", "t"], ["table.csv"]),
        (["prepare", "csv", "--table", "table.csv", "--images", "f"], ["films"]),
        (["evaluate", "detection", "--run", "films", "--encoder", "f"], ["frozen", "finetuned"]),
        (["evaluate", "classification", "--fractions", "0.1", "1", "--see"], ["--seeds"]),
        (["pretrain", "--method", "moco"], ["moco", "moco-v2"]),
        (["pretrain", "--resume", "--batch"], ["--batch_size"]),
        (["benchmark", "table"], ["table.csv"]),
        (["benchmark", "table.csv", "--tab"], ["--tables_only"]),
        (["list", "m"], ["methods"]),
        (["list", "methods", "--j"], ["--json"]),
        (["help", "ev"], ["evaluate"]),
        (["evaluate", "nothing", "--"], ["--help"]),
    ],
)
def test_what_is_offered(bash, words, offered):
    assert bash(*words) == offered


def test_every_name_is_offered(bash):
    assert set(COMMANDS) < set(bash(""))
    assert set(bash("prepare", "")) == {*CORPORA, "--help"}
    assert bash("pretrain", "--method", "") == list(METHODS)


def test_zsh_takes_the_same_script_through_its_bashcompinit(tmp_path):
    written = script(COMMANDS, "zsh")
    assert "bashcompinit" in written.splitlines()[1]
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    (tmp_path / "lingula.zsh").write_text("autoload -U compinit && compinit -u\n" + written)
    code = (
        "source lingula.zsh; emulate -L ksh; COMP_WORDS=(lingula prepare si); COMP_CWORD=2; _lingula; "
        "print -- ${COMPREPLY[@]}"
    )
    done = subprocess.run(["zsh", "-f", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*CORPORA, "--help"]  # zsh itself keeps those that begin with "si"
