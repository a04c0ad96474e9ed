"""A new method: `python examples/add_a_method.py`, or `lingula pretrain --method add_a_method:SentenceToFilm ...`."""

import sys
import tempfile
from pathlib import Path

from torch import nn

from lingula.commands.evaluate import evaluate
from lingula.commands.prepare import prepare
from lingula.commands.pretrain import pretrain
from lingula.corpora.synthetic import Synthetic
from lingula.losses.cosine import cosine
from lingula.nn.attention import cosine_maps
from lingula.nn.sentences import token_means
from lingula.tasks.retrieval import Retrieval
from lingula.training.recipe import Stage, from_scratch


class SentenceToFilm(nn.Module):
    """Sentence-to-film: each sentence of a batch finds its film among the batch's films."""

    recipes = {"scratch": from_scratch(Stage(10, {"sentence": 1.0}))}
    views, uses_text, smallest_batch = 1, True, 1

    def __init__(self, image_encoder, text_encoder, image_size, dim: int = 128, temperature: float = 0.1):
        super().__init__()
        self.image_encoder, self.text_encoder, self.temperature = image_encoder, text_encoder, temperature
        self.project_image = nn.Linear(image_encoder.width, dim)
        self.project_text = nn.Linear(text_encoder.width, dim)

    def encode_image(self, images):
        features = self.image_encoder(images)
        return features, self.project_image(features.pooled), self.project_image(features.patches)

    def encode_text(self, reports):
        features = self.text_encoder(reports)
        report = token_means(features.tokens, features.token_mask)
        return features, self.project_text(report), self.project_text(features.sentences)

    def attention_maps(self, images, reports):
        features, _, patches = self.encode_image(images)
        return cosine_maps(patches, self.encode_text(reports)[2], reports, features.grid)

    def forward(self, batch):
        film, sentences = self.encode_image(batch.image)[1], self.encode_text(batch.reports)[2]
        logits = cosine(sentences, film) / self.temperature  # (N, B)
        return {"sentence": nn.functional.cross_entropy(logits, batch.reports.report_of_sentence)}

    def after_step(self): ...


if __name__ == "__main__":
    name = "add_a_method:SentenceToFilm"  # file and class
    out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    prepare(Synthetic(train=960, val=100, test=200), out / "corpus")
    pretrain(out / "corpus", out / "run", method=name, recipe="scratch", allow=[name], quiet=True)
    evaluate(Retrieval(), out / "run", baseline=False)
