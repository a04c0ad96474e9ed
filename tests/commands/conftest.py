"""A corpus and a run as small as they come, made once: 24 films to learn from, two steps, crops of 64 px from 72."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared synthetic corpus: 24 train, 8 val and 24 test films of 72 pixels. Read it only."""
    from lingula.corpora.synthetic import Synthetic
    from lingula.data.preparation import prepare

    folder = tmp_path_factory.mktemp("small") / "corpus"
    prepare(Synthetic(train=24, val=8, test=24, film_size=72), folder, size=72, workers=0, log=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def _small_run(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lingula.commands.pretrain import pretrain

    out = tmp_path_factory.mktemp("small") / "run"
    pretrain(
        small_corpus,
        out,
        recipe="scratch",
        image_size=64,
        resize_to=72,
        batch_size=12,
        epochs=[1.0, 0.0],
        vocabulary=200,
        precision="32",
        accelerator="cpu",
        log_every=1,
        quiet=True,
    )
    return out


@pytest.fixture
def small_run(_small_run: Path, tmp_path: Path) -> Path:
    """A copy of a run of two steps on :func:`small_corpus`, to write into."""
    return Path(shutil.copytree(_small_run, tmp_path / "run"))
