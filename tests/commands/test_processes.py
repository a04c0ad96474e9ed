"""Through the real command line: two processes, a killed run, real sizes. Slow: each starts Python anew."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SMALL = ["--recipe", "scratch", "--image_size", "48", "--batch_size", "4", "--epochs", "2", "1", "--log_every", "1",
         "--options.dim", "32", "--options.decoder_widths", "[8,8]", "--quiet", "--accelerator", "cpu"]  # fmt: skip


def lingula(*arguments, **settings):
    command = [sys.executable, "-m", "lingula", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, **settings)


def terms(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "train/global" in row]


@pytest.mark.parametrize("split", [(), ("--fsdp",)], ids=["whole", "sharded"])
def test_two_processes_train_one_model_and_write_once(tiny_corpus, tmp_path, split):
    done = lingula("pretrain", "--corpus", tiny_corpus, "--out", tmp_path / "two", "--devices", "2", *split, *SMALL)
    assert done.returncode == 0, done.stderr
    rows = terms(tmp_path / "two")
    assert [row["step"] for row in rows] == list(range(1, 10))  # 24 pairs, 8 a step, 3 epochs
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    assert len(list((tmp_path / "two").glob("checkpoint-*"))) == 1
    assert lingula("evaluate", "retrieval", "--run", tmp_path / "two").returncode == 0


def test_a_killed_run_goes_on(tiny_corpus, tmp_path):
    arguments = ["pretrain", "--corpus", tiny_corpus, "--out", tmp_path / "run", "--checkpoint_every", "1", *SMALL]
    arguments[arguments.index("--epochs") + 1] = "40"
    process = subprocess.Popen([sys.executable, "-m", "lingula", *map(str, arguments)])
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "run" / "latest").exists()
    done = lingula(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    steps = [row["step"] for row in terms(tmp_path / "run")]
    assert steps == list(range(1, 40 * 6 + 6 + 1))


@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_killed_process_ends_the_others_within_a_minute(tiny_corpus, tmp_path, killed):
    run = tmp_path / "run"
    arguments = ["pretrain", "--corpus", tiny_corpus, "--out", run, "--checkpoint_every", "1", "--devices", "2", *SMALL]
    arguments[arguments.index("--epochs") + 1] = "2000"
    command = [sys.executable, "-m", "lingula", *map(str, arguments)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (run / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    (second,) = (int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(first.pid)]).split())
    os.kill(first.pid if killed == "first" else second, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (first.poll() is None or _runs(second)):
        time.sleep(0.1)
    alive = first.poll() is None, _runs(second)
    for pid in (first.pid, second):
        if _runs(pid):
            os.kill(pid, signal.SIGKILL)
    assert alive == (False, False)
    assert first.returncode != 0


def _runs(pid):
    """Whether a process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_torchrun_starts_the_processes_too(tiny_corpus, tmp_path):
    arguments = ["pretrain", "--corpus", tiny_corpus, "--out", tmp_path / "run", "--devices", "4", *SMALL]
    arguments[arguments.index("--batch_size") + 1] = "2"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", "-m", "lingula"]
    command = [*launcher, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in terms(tmp_path / "run")] == list(range(1, 10))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 4


def test_one_step_at_the_papers_size(tmp_path):
    """ResNet-50 and BERT-base with random weights, 224 pixels, D = 768, both stages: shapes and memory."""
    from transformers import BertConfig, BertModel

    from lingula.corpora.synthetic import Synthetic
    from lingula.data.preparation import prepare
    from lingula.data.tokens import train_tokenizer

    corpus = prepare(Synthetic(train=8, val=0, test=0, film_size=256), tmp_path / "corpus", 256, workers=0)
    tokenizer = train_tokenizer((s.lower() for r in corpus.reports for s in r), tmp_path / "bert", 500)
    BertModel(BertConfig(vocab_size=len(tokenizer))).save_pretrained(tmp_path / "bert")
    for recipe in ("paper", "official"):
        done = lingula("pretrain", "--corpus", tmp_path / "corpus", "--out", tmp_path / recipe, "--recipe", recipe,
                       "--text_encoder", tmp_path / "bert", "--image_encoder", "resnet50", "--pretrained", "false",
                       "--batch_size", "4", "--epochs", "1", "1", "--log_every", "1", "--quiet")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "train/reconstruction" in terms(tmp_path / recipe)[-1]
