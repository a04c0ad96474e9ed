"""A new method: `python examples/add_a_method.py`, or `lingula pretrain --method add_a_method:SentenceToImage ...`."""

import sys
import tempfile
from pathlib import Path

from torch import nn

from lingula.batch import ImageEncoding, TextEncoding
from lingula.commands.evaluate import evaluate
from lingula.commands.prepare import prepare
from lingula.commands.pretrain import pretrain
from lingula.corpora.synthetic import Synthetic
from lingula.losses.cosine import cosine
from lingula.nn.method import MethodBase
from lingula.nn.sentences import token_means
from lingula.tasks.retrieval import Retrieval
from lingula.training.recipe import Recipe, Stage, from_scratch

WEIGHTS = {"sentence": 1.0}


class SentenceToImage(MethodBase):
    """Sentence-to-image: each sentence of a batch finds its image among the batch's images."""

    recipes = {"paper": Recipe((Stage(30, WEIGHTS),)), "scratch": from_scratch(Stage(10, WEIGHTS))}
    uses_text = True

    def __init__(self, image_encoder, text_encoder, dim: int = 128, temperature: float = 0.1):
        super().__init__(WEIGHTS, image_encoder, text_encoder)
        self.temperature = temperature
        self.project_image = nn.Linear(image_encoder.width, dim)
        self.project_text = nn.Linear(text_encoder.width, dim)

    def encode_image(self, images):
        found = self.image_encoder(images)
        return ImageEncoding(found, self.project_image(found.pooled), self.project_image(found.patches), found.grid)

    def encode_text(self, reports):
        found = self.text_encoder(reports)
        report = token_means(found.tokens, found.token_mask)
        return TextEncoding(found, self.project_text(report), self.project_text(found.sentences))

    def forward(self, batch):
        images, texts = self.encode_image(batch.image), self.encode_text(batch.reports)
        logits = cosine(texts.sentences, images.embedding) / self.temperature  # (N, B)
        return self.weigh({"sentence": nn.functional.cross_entropy(logits, batch.reports.report_of_sentence)})


if __name__ == "__main__":
    name = "add_a_method:SentenceToImage"  # file and class
    out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    prepare(Synthetic(train=960, val=100, test=200), out / "corpus")
    pretrain(out / "corpus", out / "run", method=name, recipe="scratch", allow=[name], quiet=True)
    evaluate(Retrieval(), out / "run", baseline=False)
