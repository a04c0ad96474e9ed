import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingula.data.prepared import PreparedCorpus
from lingula.evaluation.finetune import Tuning
from lingula.evaluation.task import Cell
from lingula.metrics.captions import words
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.report_decoder import ReportDecoder
from lingula.registry import UserError
from lingula.tasks import report_generation
from lingula.tasks.report_generation import (
    Likeness,
    Meanings,
    Protocol,
    ReportGeneration,
    honesty,
    stored_patches,
    swapped,
    texts_of,
)

DRAWS = 20
TINY = Protocol(
    Tuning(learning_rate=3e-3, weight_decay=0, batch_size=8, epochs=1, patience=1),
    max_tokens=12,
    vocabulary=200,
    decoder={"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, "dropout": 0.0},
)


@pytest.fixture(autouse=True)
def _tiny_protocol(monkeypatch):
    monkeypatch.setitem(report_generation.PROTOCOLS, "small", TINY)


@pytest.fixture
def corpus(tiny_corpus):
    return PreparedCorpus.open(tiny_corpus)


def make_model(name="small_resnet", size=48):
    torch.manual_seed(0)
    return SimpleNamespace(
        method=SimpleNamespace(image_encoder=ImageEncoder(name, size).eval()),
        tokenizer=None,
        name="random",
        checkpoint="x",
        image_size=size,
        resize_to=size,
        batch_size=8,
        device=torch.device("cpu"),
    )


def text_of(corpus, row):
    (text,) = texts_of(corpus, [row])
    return text


@pytest.fixture
def with_reports(tiny):
    """A function to the same images with other reports, of which the corpus knows nothing or what is given."""

    def change(corpus, reports, **truth):
        unknown = [[None] * len(report) for report in reports]
        truth = {"meanings": unknown, "findings": unknown, "sentence_boxes": unknown} | truth
        return tiny.changed(corpus, sentences=reports, **truth)

    return change


def measure(corpus, cells=(Cell(),), model=None, **options):
    task = ReportGeneration(**{"protocol": "small", "beams": 2} | options)
    return list(task.measure(model or make_model(), corpus, list(cells), DRAWS))


def writing(monkeypatch, of_corpus):
    """A decoder that needs no training: ``of_corpus(corpus, rows)`` are its reports."""

    def generate(self, model, corpus, rows, seed, stored, protocol):
        return of_corpus(corpus, rows), {}

    monkeypatch.setattr(ReportGeneration, "_generate", generate)


# The whole task -------------------------------------------------------------------------------------------------------


def test_a_decoder_that_can_see_writes_what_it_sees(corpus, monkeypatch, with_reports):
    effusion = corpus.labels(["effusion"])[:, 0] == 1
    told = ["there is a large left effusion.", "heart size is normal."], ["the lungs are clear."]
    changed = with_reports(corpus, [list(told[0] if sick else told[1]) for sick in effusion])

    def patches(model, corpus, rows):
        values = 0.1 * torch.randn(len(rows), 9, 96, generator=torch.Generator().manual_seed(0))
        sign = torch.from_numpy(np.where(effusion[rows], 1.0, -1.0)).float()
        values[:, 4] += sign[:, None] * torch.linspace(-1, 1, 96)
        place = torch.full((len(corpus),), -1)
        place[torch.from_numpy(rows)] = torch.arange(len(rows))
        return report_generation.Stored(values, place)

    monkeypatch.setattr(report_generation, "stored_patches", patches)
    tuning = replace(TINY.tuning, learning_rate=1e-2, epochs=25, patience=25)
    monkeypatch.setitem(report_generation.PROTOCOLS, "small", replace(TINY, tuning=tuning, max_tokens=20))
    (measured,) = measure(changed, examples=2)
    numbers = measured.numbers
    assert numbers["bleu_4"] == numbers["rouge_l"] == pytest.approx(1.0)
    assert numbers["train_copy"] == 1
    assert numbers["distinct"] == 2 / 16
    assert numbers["swapped_bleu_4"] < 0.9
    assert numbers["frequent_bleu_4"] < 0.9
    assert np.isnan(numbers["finding_f1"])
    assert np.isnan(numbers["known_sentences"])
    unknown = "the corpus does not tell what its sentences mean"
    names = ("finding_f1", "frequent_finding_f1", "swapped_finding_f1", "known_sentences")
    assert measured.notes["undefined"] == dict.fromkeys(names, unknown)
    first = measured.notes["examples"][0]
    assert words(first["reference"]) == words(first["generated"])
    assert measured.notes["longer_references"] == 0
    assert measured.notes["best_epoch"] > 5


def test_what_a_row_holds(corpus):
    (measured,) = measure(corpus)
    assert set(measured.replicates) == set(ReportGeneration.higher_is_better)
    assert next(iter(ReportGeneration.higher_is_better)) == "bleu_4"
    assert all(values.shape == (DRAWS,) for values in measured.replicates.values())
    notes = measured.notes
    assert (notes["train_studies"], notes["test_studies"]) == (24, 16)
    assert (notes["protocol"], notes["encoder_mode"], notes["beams"]) == ("small", "frozen", 2)
    assert notes["longer_references"] == 1  # twelve tokens are few
    assert notes["max_tokens"] == 12
    assert len(notes["test_sha256"]) == 16
    assert "examples" not in notes
    assert measured.subset_ids is None
    assert {"bleu_4_low", "val_score", "swapped_cider", "distinct"} <= set(measured.row())


@pytest.mark.parametrize("encoder", ["frozen", "finetuned"])
def test_the_encoder_that_was_handed_in_stays_as_it_was(corpus, encoder, monkeypatch):
    writers = []
    original = report_generation.Writer.__init__

    def spy(self, *args):
        original(self, *args)
        writers.append(self)

    monkeypatch.setattr(report_generation.Writer, "__init__", spy)
    model = make_model()
    before = copy.deepcopy(model.method.image_encoder.state_dict())
    measure(corpus, model=model, encoder=encoder)
    for name, value in model.method.image_encoder.state_dict().items():
        assert torch.equal(value, before[name]), name  # BatchNorm's statistics too
    (writer,) = writers
    frozen = encoder == "frozen"
    trained = writer.encoder.encoder if frozen else writer.encoder
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, before[name]) == frozen, name
        assert parameter.requires_grad != frozen
    assert (writer.stored is not None) == frozen
    assert (
        torch.equal(trained.state_dict()["backbone.stem.1.running_mean"], before["backbone.stem.1.running_mean"])
        == frozen
    )


def test_the_same_seed_gives_the_same_reports_stored_or_not(corpus, monkeypatch):
    model = make_model()  # one for all: what was drawn before must not count
    one, other = measure(corpus, [Cell(1.0, 0), Cell(1.0, 1)], model=model, examples=16)
    (again,) = measure(corpus, [Cell(1.0, 0)], model=model, examples=16)
    assert again.notes == one.notes
    assert other.notes["val_score"] != one.notes["val_score"]
    monkeypatch.setattr(report_generation, "stored_patches", lambda *_: None)
    (computed,) = measure(corpus, [Cell(1.0, 0)], model=model, examples=16)
    assert computed.notes["val_score"] == pytest.approx(one.notes["val_score"], rel=1e-5)
    assert computed.notes["examples"] == one.notes["examples"]


def test_patches_are_stored_where_there_is_room(corpus):
    model, rows = make_model(), np.array([3, 30, 7])
    model.method.image_encoder.train()
    stored = stored_patches(model, corpus, rows)
    assert model.method.image_encoder.training
    model.method.image_encoder.eval()
    films = torch.from_numpy(corpus.pixels[rows]).float()[:, None] / 127.5 - 1
    with torch.no_grad():
        expected = model.method.image_encoder(films).patches
    torch.testing.assert_close(stored.values[stored.place[torch.from_numpy(rows)]], expected)
    room = 3 * expected[0].numel() * 4
    assert stored_patches(model, corpus, rows, room) is not None
    assert stored_patches(model, corpus, rows, room - 1) is None


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_decoder_fits_other_encoders(corpus, name):
    encoder = ImageEncoder(name, 48).eval()
    settings = {"width": 8, "layers": 1, "heads": 1}
    decoder = ReportDecoder(encoder.width, encoder.grid[0] * encoder.grid[1], 9, 4, 2, 3, 0, **settings)
    nats = decoder(encoder(torch.zeros(2, 1, 48, 48)).patches, torch.tensor([[2, 5, 3]] * 2), torch.ones(2, 3) > 0)
    assert nats.shape == (2, 2)
    assert nats.isfinite().all()


def test_it_learns_from_the_training_studies_drawn_and_no_other(corpus, monkeypatch):
    learnt = []
    original = report_generation.train_tokenizer

    def spy(sentences, folder, vocabulary):
        sentences = list(sentences)
        learnt.append(sentences)
        return original(sentences, folder, vocabulary)

    monkeypatch.setattr(report_generation, "train_tokenizer", spy)
    cells = ReportGeneration(protocol="small", fractions=[0.2, 1.0]).cells([0])
    part, whole = measure(corpus, cells)
    assert part.notes["train_studies"] == len(part.subset_ids) < 24
    position = {name: place for place, name in enumerate(corpus.to_pandas()["study_id"])}
    drawn = sorted(position[name] for name in part.subset_ids)
    assert set(drawn) < set(corpus.rows("train"))
    for sentences, rows in zip(learnt, (drawn, corpus.rows("train")), strict=True):
        assert sentences == [sentence for row in rows for sentence in corpus.reports[row]]
    assert part.notes["test_sha256"] == whole.notes["test_sha256"]


def test_studies_without_a_report_are_left_out(corpus, with_reports):
    reports = [list(report) for report in corpus.reports]
    for split in ("train", "val", "test"):
        reports[corpus.rows(split)[1]] = []
    (measured,) = measure(with_reports(corpus, reports))
    assert (measured.notes["train_studies"], measured.notes["test_studies"]) == (23, 15)
    for row in corpus.rows("val"):
        reports[row] = []
    with pytest.raises(UserError, match="no val studies with a report"):
        measure(with_reports(corpus, reports))


# Numbers --------------------------------------------------------------------------------------------------------------


def test_a_perfect_decoder(corpus, monkeypatch):
    writing(monkeypatch, lambda corpus, rows: [text_of(corpus, row).upper() for row in rows["test"]])
    (measured,) = measure(corpus)
    numbers = measured.numbers
    for metric in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "finding_f1", "known_sentences"):
        assert numbers[metric] == pytest.approx(1.0), metric
        if metric != "known_sentences":
            np.testing.assert_allclose(measured.replicates[metric], 1.0)
    assert numbers["cider"] == pytest.approx(10)
    assert numbers["meteor_exact_stem"] > 0.999
    for metric in ("bleu_4", "cider", "finding_f1"):
        assert numbers[f"swapped_{metric}"] < 0.6 * numbers[metric]
        assert numbers[f"frequent_{metric}"] < 0.6 * numbers[metric]


def test_a_decoder_that_ignores_the_film_is_seen_to(corpus, monkeypatch, with_reports):
    reports = [list(report) for report in corpus.reports]
    for row in corpus.rows("train")[5:9]:
        reports[row] = ["heart size is normal.", "no effusion."]
    writing(monkeypatch, lambda corpus, rows: ["heart size is normal. no effusion."] * len(rows["test"]))
    frame = corpus.to_pandas()
    truth = {
        column: [
            list(known) if report == list(written) else [None] * len(report)
            for known, report, written in zip(frame[column], reports, corpus.reports, strict=True)
        ]
        for column in ("meanings", "findings")
    }
    (measured,) = measure(with_reports(corpus, reports, **truth))
    numbers = measured.numbers
    for metric in ("bleu_4", "cider", "finding_f1"):
        assert numbers[metric] == numbers[f"swapped_{metric}"] == numbers[f"frequent_{metric}"]
    assert numbers["finding_f1"] == 0
    assert (numbers["distinct"], numbers["train_copy"]) == (1 / 16, 1)


def test_one_test_film_cannot_be_swapped(corpus, monkeypatch, with_reports):
    writing(monkeypatch, lambda corpus, rows: [text_of(corpus, row) for row in rows["test"]])
    reports = [list(report) for report in corpus.reports]
    for row in corpus.rows("test")[1:]:
        reports[row] = []
    (measured,) = measure(with_reports(corpus, reports))
    assert np.isnan(measured.numbers["swapped_bleu_4"])
    assert swapped(["a", "b", "c"]) == ["b", "c", "a"]


def test_scores_of_a_draw_are_those_of_the_studies_drawn(corpus):
    meanings = Meanings(corpus)
    written = [text_of(corpus, row) for row in range(12)]
    generated = [text_of(corpus, row) for row in (0, 1, 2, 3, 40, 41, 42, 7, 8, 43, 44, 11)]
    times = np.random.default_rng(0).integers(0, 3, 12)
    drawn = np.repeat(np.arange(12), times)
    whole = Likeness(generated, written, meanings)
    found = whole.scores(times[None].astype(float))
    again = Likeness([generated[i] for i in drawn], [written[i] for i in drawn], meanings).scores(
        np.ones((1, len(drawn)))
    )
    for metric in ReportGeneration.higher_is_better:
        if metric != "cider":
            assert found[metric][0] == pytest.approx(again[metric][0]), metric
    assert found["cider"][0] == pytest.approx(whole.cider[drawn].mean())  # n-grams weigh as in the whole test set
    assert 0 < found["finding_f1"][0] < 1


def test_a_report_affirms_what_the_film_shows(corpus):
    meanings = Meanings(corpus)
    affirmed = meanings.affirmed([words(text_of(corpus, row)) for row in range(len(corpus))])
    np.testing.assert_array_equal(affirmed, corpus.labels(meanings.names) == 1)
    assert len(meanings.names) > 5


def test_a_sentence_of_two_meanings_is_not_known(corpus, with_reports):
    findings = [["nodule", "effusion" if row % 2 else None] for row in range(len(corpus))]
    meanings = [["nodule", "stable"]] * len(corpus)
    reports = [["There is a nodule!", "Stable, again."]] * len(corpus)
    changed = with_reports(corpus, reports, findings=findings, meanings=meanings)
    meanings = Meanings(changed)
    assert meanings.finding == {("there", "is", "a", "nodule"): "nodule"}
    assert meanings.affirmed([words("There is a nodule. Stable again."), words("a nodule.")]).tolist() == [
        [True],
        [False],
    ]
    told = honesty(["there is a nodule. a cat.", "there is a nodule . a cat"], ["There is a nodule. A CAT"], meanings)
    assert told == {"distinct": 1.0, "train_copy": 0.5, "known_sentences": 0.5}


def test_clinical_metrics_where_there_are_weights(corpus, monkeypatch, tmp_path):
    writing(monkeypatch, lambda corpus, rows: [text_of(corpus, row) for row in rows["test"][:8]] + ["nothing"] * 8)
    asked = []

    def labels(reports, folder, device):
        asked.append(folder)
        found = np.zeros((len(reports), 14), dtype=bool)
        found[:, 1] = [report != "nothing" for report in reports]  # cardiomegaly, one of the five
        found[:, 13] = True
        return found

    def radgraph(generated, written, folder, python, device):
        asked.append((folder, python))
        return np.array([float(g == w) for g, w in zip(generated, written, strict=True)])

    monkeypatch.setattr(report_generation, "chexbert_labels", labels)
    monkeypatch.setattr(report_generation, "radgraph_f1", radgraph)
    options = {"chexbert": tmp_path / "c", "radgraph": tmp_path / "r", "radgraph_python": tmp_path / "p"}
    (measured,) = measure(corpus, **options)
    once = [tmp_path / "c", tmp_path / "c", (tmp_path / "r", tmp_path / "p")]
    assert asked == once * 2  # before training too
    assert measured.numbers["chexbert_micro_f1"] == pytest.approx(2 * 24 / (32 + 24))
    assert measured.numbers["chexbert_5_micro_f1"] == pytest.approx(2 * 8 / (16 + 8))
    assert measured.numbers["radgraph_f1"] == 0.5
    assert measured.replicates["radgraph_f1"].shape == (DRAWS,)


def test_missing_weights_are_found_out_before_training(corpus, monkeypatch, tmp_path):
    monkeypatch.setattr(report_generation, "finetune", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"CheXbert needs .*chexbert.pth, and there is no such file"):
        measure(corpus, chexbert=tmp_path)
    with pytest.raises(UserError, match=r"RadGraph needs .*config.json, and there is no such file"):
        measure(corpus, radgraph=tmp_path)


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "r3gen"}, "unknown protocol 'r3gen'; known: auto, r2gen, small"),
        ({"beams": 0}, "beams must be 1 or more"),
        ({"max_tokens": 2}, "max_tokens must be 3 or more"),
        ({"examples": -1}, "examples must be 0 or more"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"radgraph_python": "python"}, "--radgraph, which is not given"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message):
        ReportGeneration(**options)


def test_the_protocol_scales_with_the_training_reports(corpus, monkeypatch):
    """By default few reports train a small decoder; R2Gen's on 45 of them took an hour on two cores."""
    task = ReportGeneration()
    large = {"epochs": 100, "width": 512}
    for reports, name, expected in ((45, "small", TINY), (999, "small", TINY), (1000, "r2gen", None)):
        chosen, protocol = task._protocol(reports)
        assert chosen == name
        assert protocol == (expected or report_generation.PROTOCOLS["r2gen"])
    assert (protocol.tuning.epochs, protocol.decoder["width"]) == (large["epochs"], large["width"])
    assert ReportGeneration(protocol="r2gen")._protocol(45)[0] == "r2gen"
    assert ReportGeneration(protocol="small")._protocol(10**6)[0] == "small"
    assert task._protocol(45)[1].tuning.changed(epochs=3) == ReportGeneration(epochs=3)._protocol(45)[1].tuning
    (measured,) = measure(corpus, protocol="auto")
    assert measured.notes["protocol"] == "small"
    monkeypatch.setattr(report_generation, "LARGE", len(corpus.rows("train")))  # all shares as the whole
    monkeypatch.setitem(report_generation.PROTOCOLS, "r2gen", TINY)
    (measured,) = measure(corpus, [Cell(0.5)], protocol="auto")
    assert measured.notes["protocol"] == "r2gen"


def test_options_reach_the_training(corpus):
    (measured,) = measure(corpus, epochs=2, patience=3, max_tokens=5, learning_rate=1e-4, batch_size=12)
    assert (measured.notes["epochs"], measured.notes["max_tokens"]) == (2, 5)
    with pytest.raises(UserError, match=r"lie in \(0, 1\]"):
        ReportGeneration(fractions=[2.0]).cells([0])
