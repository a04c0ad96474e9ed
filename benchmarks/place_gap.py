"""Does PLACE's correlation loss listen to the report? `python benchmarks/place_gap.py RUN...`

On the test films of the corpus that a run was trained on: the loss with each film's own report and with another film's
of the same batch, the same patches hidden, and the difference in per cent, mean over batches of 32 with its standard
error; beside them what guessing the mean correlation of each pair of places over the training films would cost. A gap
of about nothing says that the report is not used (PLACE, correlation_gap).
"""

import sys

import torch

from lingula.evaluation.studies import pair_loader
from lingula.losses.patch_correlation import correlation_loss
from lingula.runs.folder import open_corpus
from lingula.runs.model import load


@torch.no_grad()
def gap(run: str) -> str:
    """One line of Markdown's table."""
    model = load(run)
    corpus = open_corpus(model.made, None)
    place = model.method
    train = pair_loader(model, corpus, corpus.rows("train"), 32)
    total, count = 0.0, 0.0
    for batch in train:
        target, varies = place.correlations(batch)
        pairs = (varies[:, :, None] & varies[:, None, :]).float()
        total, count = total + (target * pairs).sum(0), count + pairs.sum(0)
    mean = total / count.clamp_min(1)
    own, other, constant = [], [], []
    for batch in pair_loader(model, corpus, corpus.rows("test"), 32):
        if len(batch) < 32:
            continue
        right, wrong = place.correlation_gap(batch)
        own.append(right)
        other.append(wrong)
        target, varies = place.correlations(batch)
        hidden = place.hide(batch, target.shape[1])
        pairs = (hidden[:, :, None] | hidden[:, None, :]) & varies[:, :, None] & varies[:, None, :]
        pairs &= ~torch.eye(target.shape[1], dtype=torch.bool)
        constant.append(correlation_loss(mean.expand_as(target), target, pairs).mean())
    own, other, constant = torch.stack(own), torch.stack(other), torch.stack(constant)
    share = 100 * (other - own) / own
    error = share.std() / len(share) ** 0.5
    numbers = f"{own.mean():.4f} | {other.mean():.4f} | {share.mean():+.2f} ± {error:.2f} % | {constant.mean():.4f}"
    return f"| {run} | {numbers} |"


if __name__ == "__main__":
    print("| run | own report | another's | gap | mean correlation |\n|---|---|---|---|---|")
    for run in sys.argv[1:]:
        print(gap(run), flush=True)
