"""Zero-shot classification, on a method whose embeddings are known."""

import copy
import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from lingula.batch import ImageEncoding, TextEncoding
from lingula.commands.evaluate import evaluate
from lingula.evaluation.task import Cell
from lingula.registry import UserError
from lingula.tasks.zero_shot import ZeroShot, never_read, read_prompts, score_films, training_texts

LABELS = ["cardiomegaly", "effusion"]


class Reader:
    """Films are their labels and noise; a prompt is the label that it names, negated by "no"."""

    def __init__(self, loader, noise):
        self.loader = loader
        self.text_encoder = SimpleNamespace(max_tokens=512)
        generator = torch.Generator().manual_seed(0)
        labels = torch.from_numpy(loader.corpus.labels(LABELS)) * 2 - 1
        self.film = torch.cat([labels, noise * torch.randn(len(labels), 6, generator=generator)], dim=1)
        self.pixels = torch.from_numpy(loader.corpus.pixels.reshape(len(labels), -1).astype(np.float32))
        self.read = []

    def eval(self):
        return self

    def encode_image(self, images):
        rows = torch.cdist((images.flatten(1) + 1) * 127.5, self.pixels).argmin(1)
        return ImageEncoding(None, self.film[rows], None, (1, 1))

    def encode_text(self, reports):
        embedding = torch.zeros(len(reports.token_ids), 8)
        for place, ids in enumerate(reports.token_ids):
            text = self.loader.tokenizer.decode(ids, skip_special_tokens=True)
            self.read.append(text)
            for column, label in enumerate(LABELS):
                if label in text:
                    embedding[place, column] = -1.0 if " no " in text else 1.0
        return TextEncoding(None, embedding, None)


class BagOfWords(Reader):
    """Films by how much is wrong; a text says less of it with every "no" and "clear", as reports do."""

    words: ClassVar = {
        "abnormality": 1,
        "cardiomegaly": 1,
        "effusion": 1,
        "finding": 1,
        "no": -2,
        "clear": -1,
        "normal": -1,
    }

    def __init__(self, loader, wrong):
        super().__init__(loader, 0.0)
        generator = torch.Generator().manual_seed(1)
        self.film = torch.stack([torch.from_numpy(wrong * 2 - 1), torch.zeros(len(wrong))], dim=1).float()
        self.film = self.film + torch.randn(self.film.shape, generator=generator) * 0.2

    def encode_text(self, reports):
        texts = [self.loader.tokenizer.decode(ids, skip_special_tokens=True) for ids in reports.token_ids]
        self.read += texts
        wrong = [sum(self.words.get(word, 0) for word in text.strip(".").split()) for text in texts]
        return TextEncoding(None, torch.tensor([[of, 1.0] for of in wrong]), None)


@pytest.fixture
def model(loader):
    return model_of(Reader(loader, noise=1.0), loader)


def model_of(method, loader):
    return SimpleNamespace(
        method=method,
        trained_on={},
        tokenizer=loader.tokenizer,
        image_size=64,
        resize_to=64,
        batch_size=12,
        device=torch.device("cpu"),
    )


def test_scores_are_differences_of_cosines(loader, model):
    (found,) = ZeroShot(LABELS).measure(model, loader.corpus, [Cell()], 100)
    assert set(model.method.read) == {f"there is {no}{label}." for no in ("", "no ") for label in LABELS}
    rows = loader.corpus.rows("test")
    film = model.method.film[rows].numpy()
    expected = film[:, :2] / np.linalg.norm(film, axis=1, keepdims=True) * 2
    scores = score_films(model, loader.corpus, rows, read_prompts(None, LABELS), exclusive=False)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    labels = loader.corpus.labels(LABELS)[rows]
    assert found.numbers["auroc"] == pytest.approx(np.mean([roc_auc_score(labels[:, c], scores[:, c]) for c in (0, 1)]))
    mean = scores.mean(1)
    one = np.mean([roc_auc_score(labels[:, c], mean) for c in (0, 1)])
    assert found.numbers["auroc_one_direction"] == pytest.approx(one)
    assert abs(one - found.numbers["auroc"]) > 0.01
    assert found.numbers["accuracy"] == pytest.approx(((scores > 0) == labels).mean())
    row = found.row()
    assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]


def test_a_films_score_does_not_depend_on_the_other_films(loader, model):
    rows = loader.corpus.rows("test")
    prompts = read_prompts(None, LABELS)
    together = score_films(model, loader.corpus, rows, prompts, exclusive=False)
    for place in (0, 7, 31):
        alone = score_films(model, loader.corpus, rows[[place]], prompts, exclusive=False)
        np.testing.assert_allclose(alone[0], together[place], atol=1e-6)


def test_exclusive_classes_have_their_own_prompts_only(loader, model, tmp_path):
    model.method.read.clear()
    file = tmp_path / "prompts.yaml"
    file.write_text("cardiomegaly: ['this is cardiomegaly.', 'cardiomegaly is seen.']\neffusion: ['an effusion.']\n")
    prompts = read_prompts(file, LABELS)
    scores = score_films(model, loader.corpus, loader.corpus.rows("test"), prompts, exclusive=True)
    assert not any(" no " in text for text in model.method.read)
    film = model.method.film[loader.corpus.rows("test")].numpy()
    np.testing.assert_allclose(scores, film[:, :2] / np.linalg.norm(film, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("effusion: [a b]\ncardiomegaly:\n", "label 'cardiomegaly' needs a list of sentences"),
        ("cardiomegaly: [a b]\nefusion: [a b]\n", "'efusion' is not a label of this corpus; did you mean"),
        ("cardiomegaly: [a b]\neffusion: {presnt: [a b]}\n", "label 'effusion' needs a list"),
        ("- a\n- b\n", "must be a table of labels and prompts, got list"),
        ("cardiomegaly: [a b]\neffusion: [3]\n", "label 'effusion' needs a list"),
        ("a: [", "cannot read the prompts"),
        (
            "effusion: {present: [A b., c d], absent: [e f, ' a  B']}\n",
            "label 'effusion' has 'A b.' both as present and",
        ),
    ],
)
def test_prompts_that_do_not_fit(tmp_path, text, message):
    (tmp_path / "prompts.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / "prompts.yaml", LABELS)


def test_a_prompt_of_one_word(loader, model):
    prompts = {label: {"present": [label], "absent": []} for label in LABELS}
    with pytest.raises(UserError, match="a prompt needs two words or more, got 'cardiomegaly'"):
        score_films(model, loader.corpus, loader.corpus.rows("test"), prompts, exclusive=True)


@pytest.mark.parametrize("name", ["No Finding", "no_finding", "NoFinding", "normal", "Healthy", "no_abnormality"])
def test_a_label_that_says_that_nothing_is_wrong_is_not_upside_down(loader, tmp_path, name):
    corpus = copy.copy(loader.corpus)
    wrong = (corpus.labels(corpus.label_names) == 1).any(1).astype(float)
    effusion = corpus.labels(["effusion"])[:, 0]
    corpus.label_names, corpus.label_groups = [name, "effusion"], {}
    corpus.labels = lambda names: np.stack([1 - wrong if n == name else effusion for n in names], 1)
    model = model_of(BagOfWords(loader, wrong), loader)

    def auroc(**options):
        (found,) = ZeroShot([name], **options).measure(model, corpus, [Cell()], 10)
        return found.numbers["auroc"]

    assert auroc() > 0.9
    words = name.replace("_", " ").lower()
    before = {name: {"present": [f"there is {words}."], "absent": [f"there is no {words}."]}}
    (tmp_path / "before.yaml").write_text(yaml.safe_dump(before))
    assert auroc(prompts=tmp_path / "before.yaml") < 0.2
    (both,) = ZeroShot([name, "effusion"]).measure(model, corpus, [Cell()], 10)
    rows = corpus.rows("test")
    scores = score_films(model, corpus, rows, read_prompts(None, [name, "effusion"]), exclusive=False)
    direction = scores[:, 1] - scores[:, 0]  # something is wrong: the one label denies what the other affirms
    truth = corpus.labels([name, "effusion"])[rows]
    one = (roc_auc_score(truth[:, 0], -direction) + roc_auc_score(truth[:, 1], direction)) / 2
    assert both.numbers["auroc_one_direction"] == pytest.approx(one)


def test_a_name_that_does_not_tell_is_refused_with_the_file_that_is_asked_for(tmp_path):
    with pytest.raises(
        UserError, match=r"label 'unchanged', 'non covid'; write prompts to a file .* --prompts FILE"
    ) as no:
        read_prompts(None, ["unchanged", "effusion", "non covid"])
    shown = str(no.value).partition("FILE: ")[2]
    (tmp_path / "p.yaml").write_text(shown)
    prompts = read_prompts(tmp_path / "p.yaml", ["unchanged", "effusion", "non covid"])
    assert list(prompts) == ["unchanged", "effusion", "non covid"]
    assert prompts["effusion"] == {"present": ["there is effusion."], "absent": ["there is no effusion."]}
    assert all(len(sides["present"]) == len(sides["absent"]) == 1 for sides in prompts.values())
    with pytest.raises(UserError, match="does not tell what reports say of label 'positive'"):
        read_prompts(None, ["positive"])
    assert read_prompts(None, ["positive"], "covidx")["positive"]["present"] == ["there is covid-19."]


@pytest.mark.parametrize(
    ("present", "texts", "read"),
    [
        (["there is oedema."], ["There is edema.", "No effusion"], False),
        (["there is oedema."], ["Oedema, mild."], True),
        (["there is edema."], ["no edematous change."], False),  # a word, not its beginning
        (["there is pleural effusion."], ["pleural thickening.", "effusions."], False),  # each word
        (["there is pleural effusion."], ["pleural thickening.", "an effusion is seen."], True),
        (["there is oedema.", "there is edema."], ["edema."], True),  # one prompt is enough
        (["there is covid-19."], ["covid-19 pneumonia"], True),
        (["there is no."], [], True),  # nothing but grammar
        (["there is pneumothorax."], ["pneumothorax links."], True),  # no word of "there is" is asked for
        (["可见胸腔积液。"], ["胸腔积液可见"], True),
        (["可见胸腔积液。"], ["未见气胸"], False),
    ],
)
def test_labels_whose_words_no_report_uses(present, texts, read):
    prompts = {"x": {"present": present, "absent": []}, "y": {"present": ["there is edema."], "absent": []}}
    assert ("x" in never_read(texts, prompts)) is not read


def test_they_are_left_out_of_a_second_mean(loader, model):
    corpus, labels = loader.corpus, ["cardiomegaly", "oedema", "effusion"]
    texts = " ".join(corpus.reports[row][place].lower() for row in corpus.rows("train") for place in range(2))
    assert "oedema" not in texts
    (unknown,) = ZeroShot(labels).measure(model, corpus, [Cell()], 10)
    assert unknown.notes["labels_never_read"] is None
    assert "auroc_words_read" not in unknown.numbers
    assert unknown.notes["remarks"][-1].startswith("not checked whether the training reports use the words")

    for trained_on in ({"fingerprint": corpus.fingerprint}, {"fingerprint": "x", "folder": corpus.folder}):
        model.trained_on = trained_on
        (found,) = ZeroShot(labels).measure(model, corpus, [Cell()], 10)
        if trained_on["fingerprint"] == "x":  # another preparation in the same folder
            assert found.notes["labels_never_read"] is None
            continue
        assert found.notes["labels_never_read"] == ["oedema"]
        assert found.notes["remarks"][-1].startswith(
            "the training reports never use the words of label oedema; auroc_words_read is"
        )
        rows = corpus.rows("test")
        scores = score_films(model, corpus, rows, read_prompts(None, labels), exclusive=False)
        truth = corpus.labels(labels)[rows]
        areas = [roc_auc_score(truth[:, place], scores[:, place]) for place in range(3)]
        assert found.numbers["auroc"] == pytest.approx(np.mean(areas)) == unknown.numbers["auroc"]
        assert found.numbers["auroc_words_read"] == pytest.approx((areas[0] + areas[2]) / 2)
        assert found.row()["auroc_words_read_low"] <= found.numbers["auroc_words_read"]
    (none,) = ZeroShot(["oedema"]).measure(
        SimpleNamespace(**{**vars(model), "trained_on": {"fingerprint": corpus.fingerprint}}), corpus, [Cell()], 10
    )
    assert np.isnan(none.numbers["auroc_words_read"])


def test_the_training_reports_are_those_of_the_runs_own_folder(loader, tiny_corpus):
    from lingula.data.prepared import PreparedCorpus

    other = PreparedCorpus.open(tiny_corpus)
    model = SimpleNamespace(trained_on={"folder": str(tiny_corpus), "fingerprint": other.fingerprint})
    assert list(training_texts(model, loader.corpus)) == [s for row in other.rows("train") for s in other.reports[row]]
    for trained_on in ({}, {"folder": str(tiny_corpus / "gone"), "fingerprint": "x"}, {"folder": "s3://x/y"}):
        assert training_texts(SimpleNamespace(trained_on=trained_on), loader.corpus) is None


def test_a_run_says_so_in_its_row_and_aloud(tiny_run, capsys, tmp_path):
    (tmp_path / "p.yaml").write_text("effusion: [there is an effusion.]\n")
    task = ZeroShot(["oedema", "effusion"], tmp_path / "p.yaml")
    evaluate(task, tiny_run, seeds=[0], bootstrap=5)
    shown = capsys.readouterr().out
    assert shown.count("note: the training reports never use the words of label oedema; auroc_words_read") == 1
    assert shown.count("p.yaml has no prompts for oedema: the default ones are used") == 1
    for line in (tiny_run / "results.jsonl").read_text().splitlines()[-2:]:
        row = json.loads(line)
        assert row["labels_never_read"] == ["oedema"]
        assert [remark for remark in row["remarks"] if "oedema" in remark][-2:] == row["remarks"][-2:]
        assert row["prompts"]["oedema"]["absent"] == ["there is no oedema."]
