import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from lingula.commands.report import report
from lingula.data.loader import Loader
from lingula.data.prepared import PreparedCorpus
from lingula.pages.images import choose_films, findings_of, one_film
from lingula.pages.report import training_seconds
from lingula.registry import UserError
from lingula.training.checkpoint import checkpoint_folder

SUMMARY = {
    "seconds": 120.0,
    "probe_auroc": {
        "cm-cgns": {"mean": 0.8531, "low": 0.84, "high": 0.87, "seeds": [0]},
        "random": {"mean": 0.6212, "low": 0.6, "high": 0.64, "seeds": [0]},
    },
    "retrieval_recall_at_5": {"value": 0.7033, "chance": 0.0251, "ceiling": 0.8464},
    "pointing_game": {"value": 0.1305, "chance": 0.1656, "untrained": 0.1907},
    "swap_test": {"right": 0.9688, "swapped": 0.7469, "chance": 0.0051},
    "false_negatives": {
        "share": 0.0592,
        "precision": 0.2513,
        "recall": 0.0614,
        "string_equality": {"precision": 1.0, "recall": 0.3815},
    },
}
SECTIONS = ("summary", "training", "films", "features", "clusters", "results")


class Page(HTMLParser):
    """What a page holds: tags with their attributes, text, and whether every tag is closed in its place."""

    VOID = frozenset({"meta", "img", "br", "use", "image", "rect", "path", "stop", "link", "hr", "input"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag, **wanted):
        return [attrs for name, attrs in self.tags if name == tag and wanted.items() <= attrs.items()]

    @property
    def sections(self):
        return [attrs["id"] for attrs in self.all("section")]


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def test_whole_page(small_run, small_corpus):
    (small_run / "summary.json").write_text(json.dumps(SUMMARY))
    (small_run / "results.jsonl").write_text(
        json.dumps({"task": "retrieval", "encoder": "cm-cgns", "corpus": "synthetic", "recall_at_5": 0.4321}) + "\n"
    )
    path = report(small_run, films=3, clusters=4)
    page = page_of(path)
    html = path.read_text(encoding="utf-8")

    assert path == small_run / "report.html"
    assert page.open == []
    assert page.sections == list(SECTIONS)
    for number in (
        "0.853",
        "0.621",
        "0.703",
        "0.025",
        "0.846",
        "0.131",
        "0.191",
        "0.166",
        "0.969",
        "0.747",
        "0.251",
        "0.382",
        "0.432",
    ):
        assert number in page.text, number

    # It stands alone: no link, no script, nothing fetched, pictures inside.
    assert "http" not in html
    assert not page.all("script")
    assert not page.all("link")
    sources = [attrs[key] for tag, attrs in page.tags for key in ("src", "href") if key in attrs]
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert {source[1:] for source in sources if source.startswith("#")} <= set(ids)
    assert path.stat().st_size < 4e6

    # One heat map for each sentence of the films that were chosen, with the sentence below.
    corpus = PreparedCorpus.open(small_corpus)
    chosen = choose_films(corpus, corpus.rows("test"), 3, 0)
    assert len(page.all("figure", **{"class": "heat"})) == sum(len(corpus.reports[row]) for row in chosen)
    assert len(page.all("image", **{"class": "map"})) == len(page.all("figure", **{"class": "heat"}))
    assert all(sentence in page.text for row in chosen for sentence in corpus.reports[row])
    known = sum(box is not None for row in chosen for box in corpus.to_pandas()["sentence_boxes"][row])
    assert len(page.all("rect", **{"class": "hollow box"})) == known > 0

    # How it was made.
    made = json.loads((small_run / "run.json").read_text())
    assert made["corpus"]["fingerprint"][:12] in page.text
    assert "2 steps" in page.text
    assert len(re.findall(r"\b[0-9a-f]{64}\b", page.text)) == 1


def test_what_is_missing_is_left_out(small_run):
    (small_run / "metrics.jsonl").unlink()
    page = page_of(report(small_run, films=1, clusters=0, tsne_films=0))
    assert page.sections == ["films"]
    assert "None" not in page.text
    assert "nan" not in page.text.split()

    (small_run / "summary.json").write_text(json.dumps({"pointing_game": SUMMARY["pointing_game"], "swap_test": None}))
    page = page_of(report(small_run, films=0, clusters=0, tsne_films=0))
    assert page.sections == ["summary"]
    assert len(page.all("article")) == 1
    assert "Pointing game" in page.text
    assert "Swap test" not in page.text


def test_same_seed_same_page(small_run):
    (small_run / "metrics.jsonl").unlink()
    pages = [
        report(small_run, films=2, clusters=2, tsne_films=0, seed=seed, split="val").read_bytes() for seed in (3, 3, 4)
    ]
    assert pages[0] == pages[1] != pages[2]


def test_films_with_several_findings_come_first(small_corpus):
    corpus = PreparedCorpus.open(small_corpus)
    rows = corpus.rows("test")
    findings = (corpus.labels(corpus.label_names) == 1).sum(1)
    for seed in range(5):
        chosen = choose_films(corpus, rows, len(rows), seed)
        assert sorted(chosen) == sorted(rows)
        assert (np.diff(findings[chosen].clip(max=2)) <= 0).all()
    assert not np.array_equal(choose_films(corpus, rows, 4, 0), choose_films(corpus, rows, 4, 1))


def test_labels_that_say_that_nothing_is_there_are_not_shown_as_findings(tiny, small_run, small_corpus, tmp_path):
    folder, known = tmp_path / "corpus", PreparedCorpus.open(small_corpus)
    index, meta = known.to_pandas(), known.meta
    healthy = (index[[f"label:{name}" for name in meta["label_names"]]] != 1).all(axis=1)
    assert healthy[index["split"] == "test"].sum() > 2
    absences = ["normal", "No Finding", "no_effusion"]
    for name, values in zip(absences, (healthy, healthy, index["label:effusion"] == 0), strict=True):
        index[f"label:{name}"] = values.astype(np.float32)
    labels = {f"label:{name}": index[f"label:{name}"].tolist() for name in absences}
    changed = tiny.changed(known, label_names=[*absences, *meta["label_names"]], **labels)
    changed.write_part(np.arange(len(known)), folder)

    corpus = PreparedCorpus.open(folder)
    assert findings_of(corpus) == meta["label_names"]
    rows = corpus.rows("test")
    assert np.array_equal(
        choose_films(corpus, rows, 24, 0), choose_films(PreparedCorpus.open(small_corpus), rows, 24, 0)
    )
    page = page_of(report(small_run, folder, films=24, clusters=0))
    shown = page.text.replace("_", " ")
    assert page.sections == ["training", "films", "features"]
    assert "effusion" in shown
    for name in absences:
        captions = re.findall(rf"synthetic-0-\d+[^\n]*\b{name.replace('_', ' ')}\b", shown)
        assert not captions
        assert not re.search(rf"\b{name.replace('_', ' ')} \(\d+\)", shown)  # the legend of the map

    labels["label:other"] = (1 - index["label:normal"]).tolist()
    folder = tmp_path / "classes"
    tiny.changed(known, label_names=["normal", "other"], **labels).write_part(np.arange(len(known)), folder)
    meta = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps({**meta, "label_groups": {"class": ["normal", "other"]}}))
    page = page_of(report(small_run, folder, films=2, clusters=0))
    assert re.search(r"\bnormal \(\d+\)", page.text)  # one of two classes that exclude each other


@pytest.mark.parametrize("smaller", [1, 2])
def test_a_film_is_blank_where_the_encoder_never_saw_it(small_corpus, monkeypatch, smaller):
    """A crop of 64 from the middle of 72 leaves 4 pixels a side; the cell and the box lie where they belong.

    So they do where a film is shown smaller than it was prepared.
    """
    from lingula.pages import images
    from lingula.plots import attention

    monkeypatch.setattr(images, "SIDE", 72 // smaller)

    drawn = {}
    monkeypatch.setattr(attention, "film_figure", lambda *parts: drawn.update(enumerate(parts)))
    corpus = PreparedCorpus.open(small_corpus)
    row = int(corpus.rows("test")[0])
    loader = Loader(corpus, np.array([row]), 64, 72, 1)
    weights = torch.full((1, 16), 0.1)
    weights[0, 6] = 0.9  # second row, third column of 4 x 4 cells of 16 pixels
    box = np.array([33.0, 17.0, 40.0, 20.0])
    one_film(loader, row, weights, [box], (4, 4))
    _, film, maps, _, cells, highest, boxes, hits = drawn.values()

    side, unseen = 72 // smaller, 4 // smaller
    assert film.shape == (side, side)
    assert np.abs(film - corpus.pixels[row].reshape(side, smaller, side, smaller).mean((1, 3))).max() < smaller / 1.5
    seen = np.zeros((side, side), dtype=bool)
    seen[unseen : side - unseen, unseen : side - unseen] = True
    assert np.array_equal(~np.isnan(maps[0]), seen)
    assert np.allclose(cells, np.array([[36, 20, 52, 36]]) / smaller)
    assert np.allclose(boxes[0], (box + 4) / smaller)
    assert hits == [True]
    assert np.allclose(highest, 0.9)
    y, x = np.unravel_index(np.nanargmax(maps[0]), maps[0].shape)
    assert 20 <= y * smaller < 36
    assert 36 <= x * smaller < 52


def test_a_film_that_is_not_square_is_shown_without_its_padding(tiny, small_corpus, monkeypatch):
    from lingula.plots import attention

    drawn = {}
    monkeypatch.setattr(attention, "film_figure", lambda *parts: drawn.update(enumerate(parts)))
    corpus = PreparedCorpus.open(small_corpus)
    row = int(corpus.rows("test")[0])
    shape = {"scale": 0.5, "pad_x": 16, "pad_y": 0, "height": 144, "width": 80}
    corpus = tiny.changed(corpus, **{name: [value] * len(corpus) for name, value in shape.items()})
    one_film(Loader(corpus, np.array([row]), 64, 72, 1), row, torch.eye(4)[:1], [None], (2, 2))
    _, film, maps, _, cells, _, boxes, hits = drawn.values()
    assert np.array_equal(film, corpus.pixels[row][:, 16:56])
    assert maps.shape == (1, 72, 40)
    assert np.array_equal(~np.isnan(maps[0, :, 0]), np.arange(72) // 4 % 17 > 0)  # 4 rows at each end were never seen
    assert np.allclose(cells, [[4 - 16, 4, 36 - 16, 36]])
    assert (boxes, hits) == ([None], [None])


def test_a_corpus_that_knows_no_truth(tiny, small_run, small_corpus, tmp_path):
    folder, known = tmp_path / "corpus", PreparedCorpus.open(small_corpus)
    sentences = [list(report) for report in known.reports]
    sentences[known.rows("test")[0]] = []  # an image without a report
    unknown = [[None] * len(report) for report in sentences]
    truth = dict.fromkeys(("meanings", "findings", "sentence_boxes"), unknown)
    changed = tiny.changed(known, label_names=[], content=[None] * len(known), sentences=sentences, **truth)
    changed.write_part(np.arange(len(known)), folder)

    page = page_of(report(small_run, folder, films=100, clusters=3))
    assert page.sections == ["training", "films", "clusters"]
    assert len(page.all("image", id="film-23")) == 1
    assert not page.all("image", id="film-24")
    assert not page.all("rect", **{"class": "hollow box"})
    assert "purity" not in page.text
    assert "the box." not in page.text.replace("White: the box", "")


def test_training_time_adds_up_over_resumes():
    assert training_seconds([{"seconds": 5.0}, {"seconds": 9.0}, {"seconds": 2.0}, {"seconds": 4.0}]) == 13.0
    assert training_seconds([]) == 0.0


def test_bad_input_is_one_line(small_run, small_corpus, tmp_path):
    with pytest.raises(UserError, match="no run at"):
        report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no prepared corpus at"):
        report(small_run, tmp_path / "nowhere")
    with pytest.raises(UserError, match="films must be at least 0, got -1"):
        report(small_run, films=-1)
    (small_run / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        report(small_run)
    (small_run / "summary.json").unlink()

    made = json.loads((small_run / "run.json").read_text())
    (small_run / "run.json").write_text(json.dumps({**made, "corpus": {**made["corpus"], "fingerprint": "f" * 64}}))
    with pytest.raises(
        UserError, match=r"trained on another corpus than .*: expected synthetic with fingerprint ffffffffffff"
    ):
        report(small_run, small_corpus)
    (small_run / "run.json").write_text(json.dumps(made))

    (checkpoint_folder(small_run) / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        report(small_run)
    (small_run / "latest").unlink()
    with pytest.raises(UserError, match="no checkpoint in"):
        report(small_run)
    assert not (small_run / "report.html").exists()


def test_a_bank_of_centres_that_never_started_has_no_clusters_to_show(small_corpus, small_run, monkeypatch):
    import torch

    from lingula.methods.cm_cgns import CMCGNS
    from lingula.nn.clusters import Clusters

    def none_yet(self, points, keys, seed):
        return Clusters(torch.zeros(4, points.shape[1]), torch.full((len(points),), -1), torch.tensor(False))

    monkeypatch.setattr(CMCGNS, "find_clusters", none_yet)
    page = report(small_run, small_corpus, films=1, tsne_films=0).read_text()
    assert "What the clusters hold" not in page
