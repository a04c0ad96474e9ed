"""What does a zero-shot score rest on? `python benchmarks/zero_shot_why.py RUN...`

Macro AUROC on the test films of the corpus that a run was trained on: of the task `zero-shot` as it is (a film's cosine
with "there is X." less that with "there is no X."); of each of the two prompts alone; of one direction for all labels,
the mean over the labels of that difference, which knows no label and only what "no" does; and with three sentences of a
normal report before both prompts, so that they are as long as what the text encoder was trained on. Then how alike the
labels' differences are: their mean cosine with each other. Last, where there is a label "normal", how well the one
direction, turned round, tells such films from the others.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F

from lingula.evaluation.labels import Labels
from lingula.evaluation.studies import film_loader
from lingula.findings import is_finding
from lingula.metrics.auroc import auroc, macro_auroc
from lingula.runs.folder import open_corpus
from lingula.runs.model import load
from lingula.tasks.zero_shot import embed_prompts, read_prompts

NORMAL = "The heart is normal in size. The mediastinum is unremarkable. The lungs are clear. "


@torch.inference_mode()
def why(run: str) -> str:
    """One line of Markdown's table."""
    model = load(run)
    corpus = open_corpus(model.made, None)
    labels = Labels.of(corpus, [], "corpus")
    rows = np.intersect1d(corpus.rows("test"), labels.known)
    model.method.eval()
    films = torch.cat(
        [
            F.normalize(model.method.encode_image(batch.image).embedding.float(), dim=-1)
            for batch in film_loader(model, corpus, rows)
        ]
    )
    prompts = read_prompts(None, labels.names, corpus.name).values()

    def of(side: str, before: str = "") -> torch.Tensor:  # (C, D)
        return torch.stack([embed_prompts(model, [before + prompt for prompt in both[side]]) for both in prompts])

    def area(directions: torch.Tensor) -> str:
        return f"{100 * macro_auroc(labels.targets[rows], (films @ directions.T).numpy())[0]:.1f}"

    present, absent = of("present"), of("absent")
    apart = present - absent
    sign = torch.tensor([1.0 if is_finding(name, corpus.name) else -1.0 for name in labels.names])[:, None]
    one = (sign * apart).mean(0)  # labels such as "normal" turned round
    each = F.normalize(sign * apart, dim=-1)
    alike = ((each @ each.T).sum() - len(each)) / (len(each) * (len(each) - 1))
    longer = of("present", NORMAL) - of("absent", NORMAL)
    areas = (apart, present, -absent, sign * one, longer)
    healthy = "–"
    if "normal" in labels.names:
        is_normal = labels.targets[rows][:, labels.names.index("normal")]
        healthy = f"{100 * auroc(is_normal, -(films @ one).numpy())[0]:.1f}"
    return f"| {run} | {' | '.join(map(area, areas))} | {alike:.2f} | {healthy} |"


if __name__ == "__main__":
    print("| run | both | is | is no | one for all | behind normal sentences | alike | normal |\n" + "|---" * 8 + "|")
    for run in sys.argv[1:]:
        print(why(run), flush=True)
