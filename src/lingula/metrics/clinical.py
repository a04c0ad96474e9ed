"""Whether generated reports find the same as their references. Floor 0.

F1 over findings, and adapters for CheXbert and RadGraph, for those who have the weights: nothing is fetched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHEXBERT_CLASSES = (4,) * 13 + (2,)  # of its heads; the last is that of "No Finding"


class ClinicalError(Exception):
    """Weights or a package that the user has yet to provide, in words for the user."""


def micro_f1(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """F1 over all findings of all studies: 2 TP / (2 TP + FP + FN).

    Args:
        truth: ``(n, C)`` bool, present in the reference.
        predicted: ``(n, C)`` bool, present in the generated report.
        weights: ``(draws, n)`` how often each study counts; once by default.
    Returns:
        ``(draws,)`` in [0, 1]; NaN where neither has any.
    """
    weights = np.ones((1, len(truth))) if weights is None else weights
    both = weights @ (truth & predicted).sum(1)
    either = weights @ (truth.sum(1) + predicted.sum(1)).astype(np.float64)
    return np.divide(2 * both, either, out=np.full(len(weights), np.nan), where=either > 0)


# CheXbert -------------------------------------------------------------------------------------------------------------


class _CheXbert(nn.Module):
    """BERT-base, and on its [CLS] a linear head a label: four classes, or two for "No Finding"."""

    def __init__(self, config: Any) -> None:
        from transformers import AutoModel

        super().__init__()
        self.bert = AutoModel.from_config(config, trust_remote_code=False)
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, count) for count in CHEXBERT_CLASSES)

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """``(B, T)`` twice to ``(B, 14)`` bool."""
        first = self.bert(input_ids=token_ids, attention_mask=token_mask).last_hidden_state[:, 0]
        chosen = torch.stack([head(first).argmax(1) for head in self.linear_heads], 1)
        return (chosen == 1) | (chosen == 3)  # not mentioned, present, absent, uncertain


@torch.inference_mode()
def chexbert_labels(
    reports: Sequence[str], folder: Path, device: torch.device | str = "cpu", batch_size: int = 32
) -> np.ndarray:
    """Which of :data:`lingula.findings.CHEXBERT` each report affirms, or is uncertain about.

    Uncertain counts as present, as in the package f1chexbert 0.0.2. That package is not used: it downloads as it
    starts, and calls what transformers 5 no longer has. The architecture is read off the weights' names.

    Source: Smit et al., EMNLP 2020, arXiv:2004.09167.

    Args:
        reports: texts; an empty one affirms what the weights make of it.
        folder: with ``chexbert.pth`` (of Stanford ML Group, after their terms of use), and the ``config.json`` and
            ``vocab.txt`` of bert-base-uncased.
        device: where to run it.
        batch_size: reports at a time.
    Returns:
        ``(n, 14)`` bool.
    Raises:
        ClinicalError: for a missing file, or weights that are not CheXbert's.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(folder)
    for name, source in {
        "chexbert.pth": "the CheXbert repository of Stanford ML Group links to it",
        "config.json": "copy it from bert-base-uncased",
        "vocab.txt": "copy it from bert-base-uncased",
    }.items():
        if not (folder / name).is_file():
            raise ClinicalError(f"CheXbert needs {folder / name}, and there is no such file; {source}")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    model = _CheXbert(config)
    try:
        saved = torch.load(folder / "chexbert.pth", map_location="cpu", weights_only=True)["model_state_dict"]
        missing, _ = model.load_state_dict({name.removeprefix("module."): w for name, w in saved.items()}, strict=False)
    except Exception as err:
        raise ClinicalError(f"{folder / 'chexbert.pth'} does not hold CheXbert's weights: {err}") from err
    if missing:
        raise ClinicalError(f"{folder / 'chexbert.pth'} does not hold CheXbert's weights: it lacks {missing[0]}")
    model.to(device).eval()
    labels = [np.zeros((0, len(CHEXBERT_CLASSES)), dtype=bool)]
    for start in range(0, len(reports), batch_size):
        texts = [" ".join(report.split()) for report in reports[start : start + batch_size]]
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt").to(device)
        labels.append(model(tokens["input_ids"], tokens["attention_mask"]).cpu().numpy())
    return np.concatenate(labels)


# RadGraph -------------------------------------------------------------------------------------------------------------

_RADGRAPH = """
import json, sys
from radgraph import F1RadGraph
asked = json.load(sys.stdin)
scorer = F1RadGraph(
    reward_level="partial", model_type=asked["model"], model_cache_dir=asked["cache"], cuda=asked["cuda"]
)
values = scorer(refs=asked["references"], hyps=asked["generated"])[1]
print()
print(json.dumps([float(value) for value in values]))
"""


def radgraph_f1(
    generated: Sequence[str],
    references: Sequence[str],
    folder: Path,
    python: Path | str | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """RadGraph F1 of each study by the package ``radgraph``, "partial": entities, and whether they have a relation.

    The package runs in a process of its own, offline, so that it can live in an environment of its own: radgraph 0.1.18
    calls what transformers 5 no longer has.

    Source: Jain et al., NeurIPS Datasets and Benchmarks 2021; Delbrouck et al., EMNLP Findings 2022.

    Args:
        generated: texts.
        references: texts.
        folder: of one model, unpacked, named as the package names it: ``.../radgraph-xl`` with its ``config.json``,
            ``weights.th`` and ``vocabulary/``. Its BERT is read from the Hugging Face cache.
        python: the interpreter that has the package; this one by default.
        device: where to run it.
    Returns:
        ``(n,)`` in [0, 1]; 0 where either text is empty.
    Raises:
        ClinicalError: where the weights are missing, or the package is, or it fails.
    """
    folder, device, python = Path(folder).absolute(), torch.device(device), python or sys.executable
    if not (folder / "config.json").is_file():
        raise ClinicalError(
            f"RadGraph needs {folder / 'config.json'}, and there is no such file; name the unpacked folder of a model, "
            "such as radgraph-xl"
        )
    asked = {
        "model": folder.name,
        "cache": str(folder.parent),
        "cuda": (device.index or 0) if device.type == "cuda" else -1,
        "generated": list(generated),
        "references": list(references),
    }
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [str(python), "-c", _RADGRAPH], input=json.dumps(asked), env=offline, capture_output=True, text=True
        )
    except OSError as err:
        raise ClinicalError(f"RadGraph: cannot run the interpreter {python}: {err}") from err
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ClinicalError(
            f"RadGraph failed in {python}: {reason}; make an environment with "
            "\"pip install radgraph requests 'transformers<5'\" and name its interpreter"
        )
    values = np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float64)  # before it, what the package prints
    if values.shape != (len(generated),):
        raise ClinicalError(f"RadGraph gave {values.size} values for {len(generated)} reports")
    return values
