"""Checkpoints on disk. What is in them is tested where they are used: tests/commands/test_pretrain.py."""

import os
import stat

import pytest
import torch

from lingula.training.checkpoint import Progress, save_checkpoint


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_every_file_of_a_checkpoint_follows_the_umask(tmp_path, mask):
    model = torch.nn.Linear(2, 2)
    before = os.umask(mask)
    try:
        save_checkpoint(tmp_path, model, torch.optim.AdamW(model.parameters()), Progress(total=1))
    finally:
        os.umask(before)
    assert modes(tmp_path) == {0o666 & ~mask}


def test_all_files_of_a_run_and_of_a_corpus_may_be_read_by_the_same_people(tiny_run, tiny_corpus):
    assert len(modes(tiny_run)) == 1
    assert len(modes(tiny_corpus)) == 1
