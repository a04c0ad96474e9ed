"""Real reports with drawn films: what a code is read as, what is drawn of it, which sentences are tied."""

from __future__ import annotations

import csv
import itertools
import math
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lingula.cli import main
from lingula.corpora.synthetic import FINDINGS, Finding, render, sample_findings
from lingula.corpora.synthetic.chest import make_chest
from lingula.corpora.synthetic.codes import completed, coverage, read_code, split_codes, stated
from lingula.corpora.synthetic.findings import FURTHER, KINDS, check_finding
from lingula.corpora.synthetic.reported import DRAWN, IuPhantoms
from lingula.corpora.synthetic.ties import WORDS, named, tie
from lingula.data.preparation import prepare
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[3].parent / "shared" / "data")
COLUMNS = ["report_id", "indication", "findings", "impression", "mesh", "text_group", "split"]
REPORTS = {  # report: (findings, impression, codes, group, split)
    "CXR1": ("The heart is mildly enlarged. No effusion.", "Mild cardiomegaly.", "Cardiomegaly/mild", "t1", "train"),
    "CXR2": ("Clear lungs. Normal heart.", "Normal.", "normal", "t2", "train"),
    "CXR3": ("Clear lungs. Normal heart.", "Normal.", "normal", "t2", "train"),
    "CXR4": (
        "There is a small left pleural effusion. A nodule lies in the right upper lobe.",
        "Effusion and nodule. Breast removed.",
        "Pleural Effusion/left/small; Nodule/lung/upper lobe/right; Mastectomy/left",
        "t3",
        "val",
    ),
    "CXR5": ("Breast removed, XXXX lungs.", "", "Mastectomy/left", "t4", "test"),
    "CXR6": ("Heart size is borderline.", "", "Cardiomegaly/borderline", "t5", "test"),
    "CXR7": ("Nobody coded this one.", "", "No Indexing; Technical Quality of Image Unsatisfactory", "t6", "train"),
    "CXR8": ("Stable.", "No change.", "normal", "t7", "train"),
}


def write(folder: Path, reports=REPORTS) -> Path:
    with (folder / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for name, (findings, impression, codes, group, split) in reports.items():
            rows.writerow([name, "", findings, impression, codes, group, split])
    return folder


def read(folder: Path, **options) -> tuple[dict[str, Study], list[LeftOut]]:
    rows = list(IuPhantoms(folder, film_size=96, **options).studies())
    return {row.study_id: row for row in rows if isinstance(row, Study)}, [r for r in rows if isinstance(r, LeftOut)]


def reports(folder):
    return {"source": write(folder), "film_size": 64}


DOWNLOADS = {"reports": reports}


@pytest.fixture
def root(tmp_path):
    return write(tmp_path)


# Codes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "how", "meanings"),
    [
        ("Pleural Effusion/left/small", "drawn", ["effusion|left|small|present"]),
        ("Pleural Effusion/bilateral/large", "drawn", ["effusion|left|large|present", "effusion|right|large|present"]),
        ("Pleural Effusion/bilateral/posterior/mild", "partly", ["effusion|left|small|present"] * 2),
        ("Calcified Granuloma/lung/upper lobe/right", "drawn", ["granuloma|right|upper|present"]),
        ("Cardiomegaly", "drawn", ["cardiomegaly|present"]),
        ("Cardiac Shadow/enlarged/severe", "drawn", ["cardiomegaly|large|present"]),
        ("Cardiac Shadow/irregular", "not", []),
        ("Opacity/lung/lingula", "drawn", ["consolidation|left|mid|possible"]),
        ("Opacity/lung/middle lobe/right/patchy", "drawn", ["consolidation|right|mid|possible"]),
        ("Pneumonia/lower lobe/right", "drawn", ["consolidation|right|lower|present"]),
        ("Opacity/retrocardiac", "drawn", ["consolidation|left|lower|possible"]),
        ("Opacity/lung/base/left/streaky", "drawn", ["linear_opacity|left|lower|present"]),
        ("Opacity/lung/upper lobe/left/round", "drawn", ["nodule|left|upper|present"]),
        ("Opacity/ribs/left/anterior/round", "not", []),
        ("Density/thorax/left", "not", []),
        ("Nodule/lung/base/right/multiple", "partly", ["nodule|right|lower|small|present"]),
        ("Mass/lung/upper lobe/right/large", "drawn", ["nodule|right|upper|large|present"]),
        ("Lung/hyperdistention/mild", "partly", ["hyperinflation|moderate|present"]),
        ("Lung/hypoinflation/severe", "drawn", ["hypoinflation|large|present"]),
        ("Lung/azygos lobe", "not", []),
        ("Pulmonary Disease, Chronic Obstructive", "partly", ["hyperinflation|moderate|present"]),
        ("Pulmonary Congestion", "drawn", ["oedema|small|present"]),
        ("Hydropneumothorax/left/large", "drawn", ["pneumothorax|left|large|present", "effusion|left|present"]),
        ("Calcinosis/aorta", "drawn", ["aortic_calcification|present"]),
        ("Calcinosis/lung/hilum/lymph nodes/right", "drawn", ["calcified_nodes|right|hilum|present"]),
        ("Calcinosis/mediastinum", "drawn", ["calcified_nodes|mediastinum|present"]),
        ("Calcinosis/lung/lingula", "drawn", ["granuloma|left|mid|present"]),
        ("Calcinosis/ribs", "not", []),
        ("Diaphragm/right/elevated/mild", "drawn", ["raised_diaphragm|right|small|present"]),
        ("Diaphragm/left/obscured", "not", []),
        ("Implanted Medical Device/left", "drawn", ["pacemaker|left|present"]),
        ("Implanted Medical Device", "partly", ["pacemaker|present"]),
        ("Implanted Medical Device/aortic valve", "not", []),
        ("Tube, Inserted", "not", []),
        ("Scoliosis/lumbar vertebrae", "not", []),
        ("Shoulder/right/degenerative", "not", []),
        ("Surgical Instruments/abdomen/right", "drawn", ["clips|right|abdomen|present"]),
        ("Subcutaneous  Emphysema/right", "not", []),
        ("", "not", []),
    ],
)
def test_a_code_is_read_as_it_is_written(code, how, meanings):
    drawing = read_code(code)
    assert drawing.how == how
    got = [finding.meaning for finding in drawing.findings]
    assert len(got) == len(meanings)
    assert set(meanings) <= set(got)


def test_all_findings_of_a_code_can_be_drawn_once_completed():
    heads = [
        "Nodule", "Opacity", "Granuloma", "Cicatrix", "Thickening", "Pulmonary Atelectasis", "Markings", "Calcinosis",
        "Pneumothorax", "Pleural Effusion", "Scoliosis", "Surgical Instruments", "Fractures, Bone", "Aorta",
    ]  # fmt: skip
    words = ["lung", "apex", "hilum", "base", "left", "bilateral", "multiple", "small", "moderate", "severe", "round"]
    words += ["streaky", "interstitial", "pleura", "ribs", "abdomen", "tortuous", "diffuse"]
    seen = set()
    for head, one, other in itertools.product(heads, words, words):
        said = stated([f"{head}/{one}/{other}"])
        for finding in completed(said, np.random.default_rng(3)):
            check_finding(finding)
            seen.add(finding.name)
            if finding.zone in ("hilum", "abdomen"):
                assert finding.side
    assert len(seen) > 12


def test_two_codes_of_one_place_are_drawn_once():
    said = stated(
        ["Pleural Effusion/left/small", "Pleural Effusion/left/large", "Costophrenic Angle/bilateral/blunted"]
    )
    assert [f.meaning for f in said] == ["effusion|left|large|present", "blunted_angle|right|present"]
    said = stated(["Opacity/lung/base/left", "Consolidation/lung/base/left", "Consolidation/lung/base/right"])
    assert [f.meaning for f in said] == ["consolidation|left|lower|present", "consolidation|right|lower|present"]
    assert stated(["Granulomatous Disease", "Granuloma/lung/upper lobe/left"]) == (
        Finding("granuloma", "left", "upper"),
    )
    assert stated(["normal"]) == ()
    assert stated(["A/left", "Nodule/lung/right"]) == stated(["Nodule/lung/right", "A/left"])


def test_what_codes_leave_open_is_chosen_and_what_they_say_is_kept():
    said = stated(["Pneumothorax", "Opacity/lung/base", "Cardiomegaly/severe"])
    sides = set()
    for seed in range(30):
        whole = completed(said, np.random.default_rng(seed))
        for before, after in zip(said, whole, strict=True):
            for field in ("name", "side", "zone", "size"):
                assert getattr(before, field) in ("", getattr(after, field))
            check_finding(after)
            if not before.size:
                assert after.size != "large" or before.name == "consolidation"
            if before.name == "pneumothorax":
                sides.add(after.side)
    assert sides == {"left", "right"}


def test_codes_are_split_and_counted():
    assert split_codes("A/b; A/b;  Subcutaneous  Emphysema ;No Indexing;") == ["A/b", "Subcutaneous Emphysema"]
    counts = coverage(["Cardiomegaly; Mastectomy/left", "Cardiomegaly/mild", "normal", "Granulomatous Disease"])
    assert list(counts) == ["Cardiomegaly", "Granulomatous Disease", "Mastectomy"]
    assert counts["Cardiomegaly"] == Counter(drawn=2)
    assert counts["Granulomatous Disease"] == Counter(partly=1)
    assert counts["Mastectomy"] == Counter({"not": 1})


# Films ----------------------------------------------------------------------------------------------------------------


def test_sizes_grow():
    def area(name, size, side=""):
        return render([Finding(name, side, size=size)], 5, 96, view="PA").masks[name].sum()

    assert area("hypoinflation", "small") > area("hypoinflation", "moderate") > area("hypoinflation", "large")
    assert area("hiatal_hernia", "small") < area("hiatal_hernia", "moderate") < area("hiatal_hernia", "large")
    assert area("raised_diaphragm", "small", "left") < area("raised_diaphragm", "moderate", "left")
    ratios = []
    for size in ("borderline", "small", "moderate", "large"):
        ratios.append(make_chest([Finding("cardiomegaly", size=size)], (5,), (5, 0), "PA").anatomy.heart_ratio)
    assert ratios == sorted(ratios)
    assert 0.5 < ratios[0] < 0.55


def test_phantoms_are_not_given_what_is_only_drawn_on_request():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        for finding in sample_findings(rng):
            assert finding.name in FINDINGS
            assert not {finding.zone, finding.size} & set(KINDS[finding.name].on_request)
    assert not set(FINDINGS) & set(FURTHER)


# Sentences ------------------------------------------------------------------------------------------------------------

CHEST = make_chest(
    [
        Finding("effusion", "left", size="small"),
        Finding("consolidation", "right", "lower", "small"),
        Finding("nodule", "left", "upper", "small"),
        Finding("nodule", "right", "mid", "small"),
        Finding("cardiomegaly", size="moderate"),
        Finding("calcified_nodes", "right", "hilum"),
    ],
    (1,),
    (1, 0),
)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("there is a small left pleural effusion.", [("effusion", "left")]),
        ("patchy opacity in the right base.", [("consolidation", "right")]),
        ("the heart is enlarged.", [("cardiomegaly", "")]),
        ("a nodule in the left upper lobe.", [("nodule", "left")]),
        ("bilateral nodules.", [("nodule", "left"), ("nodule", "right")]),
        ("calcified right hilar lymph xxxx.", [("calcified_nodes", "right")]),
        ("calcified mediastinal lymph nodes.", []),  # drawn at the hilum
        ("small right pleural effusion.", []),  # drawn on the left
        ("bilateral pleural effusions.", []),  # drawn on one side
        ("nodule in the left lower lobe.", []),  # drawn higher up
        ("no pleural effusion.", []),
        ("the effusion has resolved.", []),
        ("this may be an effusion.", []),
        ("left effusion with basilar opacity.", []),  # two findings
        ("nodular opacity in the right midlung.", [("nodule", "right")]),
        ("small pneumothorax on the left.", []),  # not drawn
        ("compression of a vertebral body and opacity.", []),
        ("the lungs are well seen.", []),
    ],
)
def test_a_sentence_is_tied_only_where_its_words_leave_no_doubt(sentence, expected):
    tied = tie(sentence, CHEST.regions())
    assert sorted((region.finding.name, region.side) for region in tied) == expected


def test_words_name_every_kind_that_is_drawn():
    assert sorted(name for name, _ in WORDS) == sorted(DRAWN)
    assert named("calcified hilar nodes and a granuloma") == {"calcified_nodes", "granuloma"}
    assert named("Streaky opacity, interstitial edema.") == {"linear_opacity", "oedema"}


# Reader ---------------------------------------------------------------------------------------------------------------


def test_studies_have_the_real_text_and_what_is_drawn(root):
    studies, left_out = read(root)
    assert list(studies) == [f"CXR{n}-0" for n in (1, 2, 3, 4, 5, 6)]
    assert [(row.row, row.reason.partition(":")[0], row.bad) for row in left_out] == [
        ("row 8 of reports.csv", "report without codes", False),
        ("row 9 of reports.csv", "report of fewer than 3 tokens", False),
    ]
    assert [study.split for study in studies.values()] == ["train", "train", "train", "val", "test", "test"]
    assert studies["CXR2-0"].patient_id == studies["CXR3-0"].patient_id == "t2"
    one = studies["CXR1-0"]
    texts = ["the heart is mildly enlarged.", "no effusion.", "mild cardiomegaly."]
    assert [sentence.text for sentence in one.sentences] == texts
    assert [sentence.finding for sentence in one.sentences] == ["cardiomegaly", None, "cardiomegaly"]
    assert all(sentence.meaning is None for study in studies.values() for sentence in study.sentences)
    (box,) = one.boxes
    assert one.sentences[0].box == (box.x0, box.y0, box.x1, box.y1)
    assert one.content == "cardiomegaly|small|present"
    assert {name for name, value in one.labels.items() if value} == {"cardiomegaly"}
    four = studies["CXR4-0"]
    assert {name for name, value in four.labels.items() if value} == {"effusion", "nodule"}
    assert four.content == "effusion|left|small|present; nodule|right|upper|small|present"
    assert [s.finding for s in four.sentences] == ["effusion", "nodule", None, None]
    for study in studies.values():
        assert list(study.labels) == [*DRAWN, "normal"]
        assert study.annotated == DRAWN


def test_normal_is_known_where_the_film_shows_it(root):
    studies, _ = read(root)
    assert [studies[f"CXR{n}-0"].labels["normal"] for n in (1, 2, 4, 6)] == [0, 1, 0, 0]
    assert math.isnan(studies["CXR5-0"].labels["normal"])
    assert studies["CXR5-0"].content == studies["CXR2-0"].content == "normal"
    assert studies["CXR6-0"].labels["cardiomegaly"] == -1


def test_masks_are_known_of_every_finding_and_films_are_drawn_from_the_report_alone(root, tmp_path):
    studies, _ = read(root)
    four = pickle.loads(pickle.dumps(studies["CXR4-0"]))
    assert set(four.masks) == set(DRAWN)
    assert {name for name, mask in four.masks.items() if mask(96, 96).any()} == {"effusion", "nodule"}
    film = four.image()
    assert film.shape == (96, 96)
    assert film.dtype == np.uint8
    other = tmp_path / "other"
    other.mkdir()
    write(other, {"CXR4": REPORTS["CXR4"]})
    assert np.array_equal(read(other)[0]["CXR4-0"].image(), film)
    assert not np.array_equal(read(other, seed=1)[0]["CXR4-0"].image(), film)
    assert not np.array_equal(studies["CXR2-0"].image(), studies["CXR3-0"].image())


def test_only_training_reports_have_several_films(root):
    studies, _ = read(root, films_per_report=3)
    counts = Counter(name.partition("-")[0] for name in studies)
    assert counts == {"CXR1": 3, "CXR2": 3, "CXR3": 3, "CXR4": 1, "CXR5": 1, "CXR6": 1}
    films = [studies[f"CXR1-{k}"] for k in range(3)]
    assert len({film.image().tobytes() for film in films}) == 3
    assert {film.content for film in films} == {"cardiomegaly|small|present"}
    assert {film.patient_id for film in films} == {"t1"}
    assert np.array_equal(films[0].image(), read(root)[0]["CXR1-0"].image())


def test_reports_with_what_is_not_drawn_can_be_left_out(root):
    studies, left_out = read(root, codes="drawn")
    assert list(studies) == [f"CXR{n}-0" for n in (1, 2, 3, 6)]
    assert "code that is not drawn whole: Mastectomy/left" in [row.reason for row in left_out]
    assert not any(row.bad for row in left_out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"films_per_report": 0}, "films_per_report must be at least 1, got 0"),
        ({"codes": "some"}, "codes 'some'; expected any or drawn"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"film_size": 16}, "films are 32 to 2048 pixels wide, got 16"),
    ],
)
def test_refuses(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        IuPhantoms(tmp_path, **options)


def test_a_missing_table_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no reports\.csv in .*; it comes from .*iu_reports"):
        list(IuPhantoms(tmp_path).studies())
    (tmp_path / "reports.csv").write_text("report_id,findings,impression,mesh,split\nCXR1,a,b,normal,train\n")
    with pytest.raises(UserError, match="no column 'text_group'"):
        list(IuPhantoms(tmp_path).studies())


def test_it_is_prepared_from_the_command_line(root, tmp_path, capsys):
    out = tmp_path / "prepared"
    arguments = ["--source", str(root), "--film_size", "64", "--out", str(out), "--size", "64", "--workers", "0"]
    assert main(["prepare", "iu-phantoms", *arguments]) in (None, 0)
    assert "prepared 6 studies (3 train, 1 val, 2 test)" in capsys.readouterr().out
    corpus = prepare(IuPhantoms(root, film_size=64), tmp_path / "again", size=64, workers=0, log=lambda line: None)
    assert len(corpus.label_names) == len(DRAWN) + 1


def test_the_real_reports():
    folder = DATA / "iu_reports"
    if not (folder / "reports.csv").is_file():
        pytest.skip("the reports of Indiana University are not on this machine (set LINGULA_DATA)")
    rows = list(IuPhantoms(folder, film_size=96).studies())
    studies = [row for row in rows if isinstance(row, Study)]
    assert len(rows) == 3141
    assert not any(row.bad for row in rows if isinstance(row, LeftOut))
    with (folder / "reports.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert Counter(row["split"] for row in table) == {"train": 2198, "val": 313, "test": 630}
    assert Counter(study.split for study in studies) == {"train": 2122, "val": 308, "test": 620}
    splits: dict[str, set[str | None]] = {}
    for study in studies:
        splits.setdefault(study.patient_id, set()).add(study.split)
    assert all(len(where) == 1 for where in splits.values())
    total = sum(coverage(row["mesh"] for row in table).values(), Counter())
    assert total == {"drawn": 3958, "partly": 577, "not": 820}
    for study in studies[:40]:
        assert study.image().shape == (96, 96)
