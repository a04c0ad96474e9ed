"""The folder of a run: ``run.json``, and the corpus that it was trained on. Floor 4."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lingula import __version__
from lingula.records import write_json
from lingula.registry import UserError

if TYPE_CHECKING:
    from lingula.data.prepared import PreparedCorpus


def read_run(run: Path) -> dict[str, Any]:
    """``run.json``.

    Raises:
        UserError: if the folder is not a run.
    """
    path = Path(run) / "run.json"
    if not path.is_file():
        if (Path(run) / "corpus.json").is_file():
            raise UserError(
                f"{run} is a prepared corpus, not a run; train one on it with lingula pretrain --corpus {run}"
            )
        raise UserError(
            f"no run at {run} (it holds no run.json); train one with lingula pretrain --corpus FOLDER --out {run}"
        )
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def command() -> str:
    """What was typed."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def claim(out: Path) -> None:
    """Make the folder of a fresh run; a run that never got to a checkpoint may begin again in its own.

    Raises:
        UserError: if the folder cannot be made, or holds a trained run, or files of the names that a run's have.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(f"cannot make the folder {out}: {err.strerror}; choose another --out") from err
    if not (out / "run.json").is_file():
        taken = [name for name in ("latest", "metrics.jsonl", "tokenizer", "text_encoder") if (out / name).exists()]
        if taken:
            raise UserError(f"{out} holds {taken[0]} but no run.json: it is no run; choose another --out")
    elif (out / "latest").is_file():
        raise UserError(f"{out} already holds a run; go on with it by --resume, or choose another --out")


def begin(fabric: Any, out: Path, made: dict[str, Any], config: Any) -> None:
    """Say in the folder of a new run how it is made, now that all its parts could be built.

    Until here there is nothing in the folder but ``tokenizer.partial``.
    """
    fabric.barrier()  # everybody has read the tokenizer
    if fabric.is_global_zero:
        about = {
            "lingula": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {fabric.device}",
            "command": command(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write_json(out / "run.json", {**made, **about})
        shutil.rmtree(out / "tokenizer", ignore_errors=True)  # of a run that never got to a checkpoint
        if (out / "tokenizer.partial").is_dir():
            (out / "tokenizer.partial").rename(out / "tokenizer")
        if config is not None:
            config.save_pretrained(out / "text_encoder")
    fabric.barrier()


def open_corpus(made: dict[str, Any], corpus: Path | None) -> PreparedCorpus:
    """The corpus that was asked for, or the one that the run was trained on.

    Raises:
        UserError: if there is none, or the folder of the training now holds another preparation, whose test split may
            hold films that were trained on.
    """
    from lingula.data.prepared import PreparedCorpus
    from lingula.registry import UserError

    trained_on = made["corpus"]
    prepared = PreparedCorpus.open(corpus or trained_on["folder"])
    same_name = prepared.name == trained_on["name"]
    if corpus is None and same_name and prepared.fingerprint != trained_on["fingerprint"]:
        raise UserError(
            f"{prepared.folder} holds another preparation of {prepared.name} than the run was trained on "
            f"({prepared.fingerprint[:12]}, not {trained_on['fingerprint'][:12]}); name a corpus with --corpus"
        )
    warn_of_another_preparation(made, prepared)
    return prepared


def warn_of_another_preparation(made: dict[str, Any], prepared: PreparedCorpus) -> None:
    """Say so where the corpus of a run was prepared anew: its test films may be among those trained on."""
    trained_on = made["corpus"]
    if prepared.name == trained_on["name"] and prepared.fingerprint != trained_on["fingerprint"]:
        print(
            f"note: {prepared.folder} is another preparation of {prepared.name} than the run was trained on; "
            "its test films may have been trained on",
            file=sys.stderr,
        )
