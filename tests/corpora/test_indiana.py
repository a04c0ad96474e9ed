"""The reader of the Indiana University films and reports, on small archives in its three layouts; texts invented."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.indiana import Indiana
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import LeftOut, Study
from lingula.registry import UserError

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")

# number: (findings, impression, MeSH major headings, films as Open-i names them, with their views)
REPORTS: dict[int, tuple[str, str, list[str], list[tuple[str, str]]]] = {
    1: (
        "The lungs are clear. No XXXX effusion.",
        "Clear  chest\nx-XXXX.",
        ["normal"],
        [("CXR1_1_IM-0001-3001", "Lateral"), ("CXR1_1_IM-0001-4001", "Frontal")],
    ),
    2: (
        "",
        "1. Enlarged heart. 2. Calcified node < 5 mm & stable.",
        ["Cardiomegaly/borderline", "Granuloma/lung  \n"],
        [("CXR2_IM-0652-1001", "Frontal"), ("CXR2_IM-0652-2001", "Lateral")],
    ),
    10: (
        "Lungs are dark.",
        "",
        ["No Indexing"],
        [("CXR10_IM-0002-1001", "Frontal"), ("CXR10_IM-0002-1002", "Frontal")],
    ),
    11: (
        "Blurred by motion.",
        "Please repeat it.",
        ["Technical Quality of Image Unsatisfactory ", "No Indexing"],
        [("CXR11_IM-0067-1001-0001", "Lateral")],
    ),
    12: ("Nobody filmed this one.", "Nothing to see.", ["normal"], []),
    13: ("", " ", ["normal"], [("CXR13_IM-0198-1001", "Frontal")]),
    14: ("Stable.", "No change.", ["normal"], [("CXR14_IM-0256-1001", "Frontal")]),
}
SENTENCES = {
    "CXR1": ["the lungs are clear.", "no xxxx effusion.", "clear chest x-xxxx."],
    "CXR2": ["enlarged heart.", "calcified node < 5 mm & stable."],
    "CXR10": ["lungs are dark."],
    "CXR11": ["blurred by motion.", "please repeat it."],
}
NORMAL = {"CXR1": 1.0, "CXR2": 0.0, "CXR10": math.nan, "CXR11": math.nan}


def film(path: Path, grey: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 10), grey, np.uint8)).save(path)


def kaggle_name(name: str) -> str:
    """Open-i's ``CXR1_1_IM-0001-3001`` is Kaggle's ``1_IM-0001-3001.dcm.png``."""
    return f"{name.partition('_')[0].removeprefix('CXR')}_{name[name.index('IM-') :]}.dcm.png"


def projections(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "filename", "projection"])
        for number, (*_, films) in REPORTS.items():
            writer.writerows([number, kaggle_name(name), view] for name, view in reversed(films))


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    return write_kaggle(tmp_path / "kaggle")


def write_kaggle(root: Path) -> Path:
    for *_, films in REPORTS.values():
        for name, view in films:
            film(root / "images" / "images_normalized" / kaggle_name(name), 200 if view == "Frontal" else 50)
    projections(root / "indiana_projections.csv")
    with (root / "indiana_reports.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"])
        for number, (findings, impression, headings, _) in REPORTS.items():
            mesh, problems = ";".join(headings), ";".join(heading.partition("/")[0] for heading in headings)
            writer.writerow(
                [number, mesh, problems, " PA and lateral", "Cough and XXXX", "None.", findings, impression]
            )
    return root


@pytest.fixture
def open_i(tmp_path: Path) -> Path:
    return write_open_i(tmp_path / "open_i")


def write_open_i(root: Path) -> Path:
    (root / "ecgen-radiology").mkdir(parents=True)
    for number, (findings, impression, headings, films) in REPORTS.items():
        sections = {"COMPARISON": "None.", "INDICATION": "Cough", "FINDINGS": findings, "IMPRESSION": impression}
        abstract = "".join(
            f'<AbstractText Label="{label}">{escape(text)}</AbstractText>' for label, text in sections.items()
        )
        majors = "".join(f"<major>{heading}</major>" for heading in headings)
        images = "".join(
            f'<parentImage id="{name}"><figureId>F{place}</figureId><caption>PA and lateral, XXXX</caption>'
            f'<panel type="single"><url>/hadoop/{name}.jpg</url></panel></parentImage>'
            for place, (name, _) in enumerate(films, 1)
        )
        text = (
            '<?xml version="1.0" encoding="utf-8"?>\n'
            f'<eCitation><meta type="rr"/><uId id="CXR{number}"/><pmcId id="{number}"/>'
            f'<MedlineCitation Owner="Indiana University"><Article><Abstract>{abstract}</Abstract></Article>'
            f"</MedlineCitation><MeSH>{majors}<automatic>cough</automatic></MeSH>{images}</eCitation>"
        )
        (root / "ecgen-radiology" / f"{number}.xml").write_text(text, encoding="utf-8")
        for name, view in films:
            film(root / "NLMCXR_png" / f"{name}.png", 200 if view == "Frontal" else 50)
    return root


@pytest.fixture
def r2gen(tmp_path: Path) -> Path:
    return write_r2gen(tmp_path / "iu_xray")


def write_r2gen(root: Path) -> Path:
    ids = {"train": ["CXR2384_IM-0942", "CXR1_1_IM-0001"], "val": ["CXR2926_IM-1328"], "test": ["CXR3030_IM-1405"]}
    annotation = {
        split: [
            {"id": name, "report": f"Report of {name} . Lungs XXXX clear .", "image_path": paths, "split": split}
            for name in names
            for paths in [[f"{name}/{place}.png" for place in range(2)]]
        ]
        for split, names in ids.items()
    }
    (root / "images").mkdir(parents=True)
    (root / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    for entries in annotation.values():
        for entry in entries:
            for place, path in enumerate(entry["image_path"]):
                film(root / "images" / path, 200 - 100 * place)
    return root


DOWNLOADS = {"kaggle": write_kaggle, "open-i": write_open_i, "r2gen": write_r2gen}
OPTIONAL = ["ecgen-radiology/*.xml"]


def read(root: Path, **options: Any) -> tuple[list[Study], list[LeftOut]]:
    rows = list(Indiana(root, **options).studies())
    return [row for row in rows if isinstance(row, Study)], [row for row in rows if isinstance(row, LeftOut)]


def quiet(line: str) -> None:
    pass


def check_text_and_labels(studies: list[Study]) -> None:
    for study in studies:
        assert [sentence.text for sentence in study.sentences] == SENTENCES[study.patient_id]
        assert list(study.labels) == ["normal"]
        np.testing.assert_equal(study.labels["normal"], NORMAL[study.patient_id])
        assert study.split is None


def test_kaggle_frontal(kaggle: Path) -> None:
    studies, left_out = read(kaggle)
    assert [(study.study_id, study.patient_id, study.view) for study in studies] == [
        ("1_IM-0001-4001", "CXR1", "Frontal"),
        ("2_IM-0652-1001", "CXR2", "Frontal"),
        ("10_IM-0002-1002", "CXR10", "Frontal"),
        ("10_IM-0002-1001", "CXR10", "Frontal"),
    ]
    check_text_and_labels(studies)
    assert studies[0].image == kaggle / "images" / "images_normalized" / "1_IM-0001-4001.dcm.png"
    assert studies[0].row == "row 2 of indiana_reports.csv"
    # the impression of report 1 has a line break, so that report 2 starts on line 4
    assert left_out == [
        LeftOut("row 2 of indiana_reports.csv", "view 'Lateral' not wanted: 1_IM-0001-3001", bad=False),
        LeftOut("row 4 of indiana_reports.csv", "view 'Lateral' not wanted: 2_IM-0652-2001", bad=False),
        LeftOut("row 7 of indiana_reports.csv", "view 'Lateral' not wanted: 11_IM-0067-1001-0001", bad=False),
        LeftOut("row 8 of indiana_reports.csv", "report without a film", bad=False),
        LeftOut("row 9 of indiana_reports.csv", "report without findings and impression", bad=False),
        LeftOut("row 10 of indiana_reports.csv", "report of fewer than 3 tokens: Stable. No change.", bad=False),
    ]
    assert Indiana(kaggle).remarks == []


def test_kaggle_all_views(kaggle: Path) -> None:
    studies, left_out = read(kaggle, views="all")
    views = ["Frontal", "Lateral", "Lateral", "Frontal", "Frontal", "Frontal", "Lateral"]
    assert [study.view for study in studies] == views
    check_text_and_labels(studies)
    assert [row.reason.partition(": ")[0] for row in left_out] == [
        "report without a film",
        "report without findings and impression",
        "report of fewer than 3 tokens",
    ]


def test_kaggle_rows_that_do_not_fit(kaggle: Path) -> None:
    with (kaggle / "indiana_projections.csv").open("a") as file:
        file.write("77,77_IM-1.dcm.png,Frontal\n")
    with (kaggle / "indiana_reports.csv").open("a") as file:
        file.write(",normal,normal,x,,,The lungs are clear.,\n")
    left_out = read(kaggle)[1][-2:]
    assert left_out[0] == LeftOut("row 11 of indiana_reports.csv", "no report id: 'CXR', expected CXR and a number")
    assert left_out[1] == LeftOut(
        "row 11 of indiana_projections.csv", "film without a report: 77_IM-1 of CXR77", bad=False
    )
    with (kaggle / "indiana_projections.csv").open("a") as file:
        file.write("77,77_IM-2.dcm.png,Oblique\n")
    with pytest.raises(
        UserError, match=r"row 12 of indiana_projections\.csv: unknown projection 'Oblique'; expected Fro"
    ):
        read(kaggle)


def test_open_i_takes_the_first_film(open_i: Path) -> None:
    studies, left_out = read(open_i)
    assert [(study.study_id, study.patient_id, study.view, study.row) for study in studies] == [
        ("CXR1_1_IM-0001-3001", "CXR1", "", "1.xml"),
        ("CXR2_IM-0652-1001", "CXR2", "", "2.xml"),
        ("CXR10_IM-0002-1001", "CXR10", "", "10.xml"),
        ("CXR11_IM-0067-1001-0001", "CXR11", "", "11.xml"),
    ]
    check_text_and_labels(studies)
    assert studies[0].image == open_i / "NLMCXR_png" / "CXR1_1_IM-0001-3001.png"
    assert left_out == [
        LeftOut("1.xml", "not the first film of its report: CXR1_1_IM-0001-4001", bad=False),
        LeftOut("2.xml", "not the first film of its report: CXR2_IM-0652-2001", bad=False),
        LeftOut("10.xml", "not the first film of its report: CXR10_IM-0002-1002", bad=False),
        LeftOut("12.xml", "report without a film", bad=False),
        LeftOut("13.xml", "report without findings and impression", bad=False),
        LeftOut("14.xml", "report of fewer than 3 tokens: Stable. No change.", bad=False),
    ]
    assert Indiana(open_i).remarks == [
        "views unknown: the first film of each report is taken, usually the frontal one; name Kaggle's table with "
        "projections"
    ]
    assert len(read(open_i, views="all")[0]) == 7
    assert Indiana(open_i, views="all").remarks == []


def test_open_i_with_kaggles_projections(open_i: Path, tmp_path: Path) -> None:
    table = tmp_path / "indiana_projections.csv"
    projections(table)
    with table.open("a") as file:
        file.write("3,3_IM-0652-1001.dcm.png,Lateral\n")  # a number of report 2's, on another report's film
    studies, left_out = read(open_i, projections=table)
    assert [(study.study_id, study.view) for study in studies] == [
        ("CXR1_1_IM-0001-4001", "Frontal"),
        ("CXR2_IM-0652-1001", "Frontal"),
        ("CXR10_IM-0002-1001", "Frontal"),
        ("CXR10_IM-0002-1002", "Frontal"),
    ]
    assert left_out[2] == LeftOut("11.xml", "view 'Lateral' not wanted: CXR11_IM-0067-1001-0001", bad=False)
    assert Indiana(open_i, projections=table).remarks == []
    views = [study.view for study in read(open_i, views="all", projections=table)[0]]
    assert views == ["Lateral", "Frontal", "Frontal", "Lateral", "Frontal", "Frontal", "Lateral"]
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if not line.startswith("2,")))
    assert LeftOut("2.xml", "view '' not wanted: CXR2_IM-0652-1001", bad=False) in read(open_i, projections=table)[1]


def test_broken_xml_is_a_bad_row(open_i: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("The lungs of a file outside.")
    folder = open_i / "ecgen-radiology"
    (folder / "20.xml").write_text("<eCitation><uId id='CXR20'/>")
    (folder / "21.xml").write_text(
        f'<!DOCTYPE eCitation [<!ENTITY outside SYSTEM "{secret.as_uri()}">]><eCitation><uId id="CXR21"/>'
        '<AbstractText Label="FINDINGS">&outside;</AbstractText><parentImage id="CXR21_IM-1"/></eCitation>'
    )
    (folder / "22.xml").write_text("<?xml version='1.0' encoding='utf-99'?><eCitation/>")
    (folder / "23.xml").write_text("<eCitation><parentImage id='CXR23_IM-1'/></eCitation>")
    (folder / "notes.txt").write_text("not a report")
    bad = [row for row in read(open_i)[1] if row.bad]
    assert [(row.row, row.reason.partition(": ")[0]) for row in bad] == [
        ("20.xml", "broken XML"),
        ("21.xml", "broken XML"),
        ("22.xml", "broken XML"),
        ("23.xml", "no report id"),
    ]
    assert "outside" in bad[1].reason  # the entity is named, never read
    with pytest.raises(UserError, match=r"indiana: 4 bad rows: 3 broken XML \(first: 20\.xml: "):
        prepare(Indiana(open_i), tmp_path / "out", size=8, workers=0, log=quiet)
    corpus = prepare(Indiana(open_i), tmp_path / "out", size=8, workers=0, skip_bad_rows=True, log=quiet)
    assert len(corpus) == 4


def test_r2gen_keeps_its_split(r2gen: Path, tmp_path: Path) -> None:
    studies, left_out = read(r2gen)
    assert [(study.study_id, study.patient_id, study.split, study.labels) for study in studies] == [
        ("CXR2384_IM-0942/0", "CXR2384", "train", {}),
        ("CXR1_1_IM-0001/0", "CXR1", "train", {}),
        ("CXR2926_IM-1328/0", "CXR2926", "val", {}),
        ("CXR3030_IM-1405/0", "CXR3030", "test", {}),
    ]
    assert [sentence.text for sentence in studies[0].sentences] == ["report of cxr2384_im-0942 .", "lungs xxxx clear ."]
    assert left_out[1] == LeftOut(
        "train report 2 of annotation.json", "not the first film of its report: CXR1_1_IM-0001/1", bad=False
    )
    assert Indiana(r2gen).remarks == ["views unknown: the first film of each report is taken, usually the frontal one"]
    corpus = prepare(Indiana(r2gen, views="all"), tmp_path / "out", size=8, workers=0, log=quiet)
    assert [len(corpus.rows(split)) for split in ("train", "val", "test")] == [4, 2, 2]
    assert corpus.pixels[:2].max(axis=(1, 2)).tolist() == [200, 100]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", r"cannot read .*annotation\.json"),
        ("[]", r"annotation\.json is not R2Gen's: expected an object of lists train, val, test"),
        ('{"train": [], "val": []}', r"annotation\.json is not R2Gen's"),
    ],
)
def test_another_annotation(r2gen: Path, written: str, message: str) -> None:
    (r2gen / "annotation.json").write_text(written)
    with pytest.raises(UserError, match=message):
        read(r2gen)


def test_bad_rows_of_an_annotation(r2gen: Path) -> None:
    """The second is R2Gen's MIMIC-CXR, which has the same form."""
    entries = [
        {"id": "CXR5_IM-1", "report": "Lungs are clear ."},
        {"id": "02aa804e-bde0afdd", "report": "Lungs are clear .", "image_path": ["p10/0.jpg"]},
        {"id": "CXR6_IM-2", "report": " ", "image_path": ["CXR6_IM-2/0.png"]},
        None,
    ]
    (r2gen / "annotation.json").write_text(json.dumps({"train": entries, "val": [], "test": []}))
    studies, left_out = read(r2gen)
    assert not studies
    assert [row.bad for row in left_out] == [True, True, False, True]
    assert [row.reason for row in left_out[:3]] == [
        "not a report of id, report and image_path: 'image_path'",
        "no report id: '02aa804e-bde0afdd', expected CXR and a number",
        "report without findings and impression",
    ]


def test_one_draw_holds_for_both_layouts(kaggle: Path, open_i: Path, tmp_path: Path) -> None:
    splits = []
    for root in (kaggle, open_i):
        out = tmp_path / f"{root.name}-out"
        prepare(Indiana(root), out, 8, 0, val_fraction=0.3, test_fraction=0.3, log=quiet)
        splits.append(dict(PreparedCorpus.open(out).to_pandas()[["patient_id", "split"]].to_numpy().tolist()))
    assert splits[0]["CXR1"] == splits[1]["CXR1"]
    assert set(splits[0]) == {"CXR1", "CXR2", "CXR10"}  # the only film of report 11 is lateral


def test_from_the_command_line(kaggle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--root", str(kaggle), "--out", str(out), "--size", "8", "--workers", "0"]
    main(["prepare", "indiana", *arguments, "--views", "all"])
    index = PreparedCorpus.open(out).to_pandas().set_index("study_id")
    assert len(index) == 7
    assert index["projection"].value_counts().to_dict() == {"Frontal": 4, "Lateral": 3}
    assert index.loc["1_IM-0001-4001", "sentences"].tolist() == SENTENCES["CXR1"]
    assert index.loc["1_IM-0001-4001", "label:normal"] == 1
    assert math.isnan(index.loc["10_IM-0002-1001", "label:normal"])
    greys = np.load(out / "pixels.npy").max(axis=(1, 2))
    assert greys.tolist() == [200 if view == "Frontal" else 50 for view in index["projection"]]
    assert "indiana: left out 1 rows: report without a film" in capsys.readouterr().out
    assert len(pd.read_csv(out / "left_out.csv")) == 3


def test_which_layout(kaggle: Path, open_i: Path, r2gen: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder at"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no ecgen-radiology/, indiana_reports\.csv or annotation\.json .*openi\.nlm"):
        read(tmp_path)
    with pytest.raises(UserError, match="views 'lateral'; expected frontal or all"):
        read(kaggle, views="lateral")
    for root in (kaggle, r2gen):
        with pytest.raises(UserError, match=r"projections tell the views of the layout ecgen-radiology/, not of "):
            Indiana(root, projections=kaggle / "indiana_projections.csv").fingerprint()
    with pytest.raises(UserError, match="no table at"):
        Indiana(open_i, projections=tmp_path / "none.csv").fingerprint()
    (kaggle / "annotation.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds indiana_reports\.csv and annotation\.json; give each layout a folder"):
        read(kaggle)
    (kaggle / "annotation.json").unlink()
    (kaggle / "indiana_projections.csv").unlink()
    with pytest.raises(UserError, match=r"no indiana_projections\.csv in .*kaggle\.com"):
        Indiana(kaggle).fingerprint()
    for file in (open_i / "ecgen-radiology").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"no \.xml files in .*openi\.nlm"):
        Indiana(open_i).fingerprint()
    (open_i / "NLMCXR_png").rename(open_i / "elsewhere")
    with pytest.raises(UserError, match=r"no folder NLMCXR_png or png or images in .*NLMCXR_png\.tgz"):
        read(open_i)


def test_the_fingerprint_follows_the_views_and_the_table_of_projections(open_i: Path, tmp_path: Path) -> None:
    table = tmp_path / "views.csv"
    projections(table)
    before = Indiana(open_i, projections=table).fingerprint()
    assert before != Indiana(open_i, projections=table, views="all").fingerprint()
    table.write_text(table.read_text() + " \n")
    assert Indiana(open_i, projections=table).fingerprint() != before


@pytest.mark.skipif(not (DATA / "iu_reports" / "reports.csv").is_file(), reason="needs the real reports")
def test_the_real_reports(tmp_path: Path) -> None:
    """The real texts, without their films, written as Kaggle's tables: nothing is added, next to nothing is lost."""
    real = pd.read_csv(DATA / "iu_reports" / "reports.csv", dtype=str, keep_default_na=False)
    root = tmp_path / "kaggle"
    (root / "images").mkdir(parents=True)
    uid = real.report_id.str.removeprefix("CXR")
    tables = {
        "uid": uid,
        "MeSH": real.mesh.str.replace("; ", ";"),
        "findings": real.findings,
        "impression": real.impression,
    }
    pd.DataFrame(tables).to_csv(root / "indiana_reports.csv", index=False)
    films = pd.DataFrame({"uid": uid, "filename": uid + "_IM-1-1001.dcm.png", "projection": "Frontal"})
    films.to_csv(root / "indiana_projections.csv", index=False)
    studies, left_out = read(root)
    assert len(studies) + len(left_out) == len(real)
    assert len(left_out) < 0.01 * len(real)
    assert not any(row.bad for row in left_out)
    assert sum(study.labels["normal"] == 1 for study in studies) >= 0.98 * (real.normal == "1").sum()
    texts = dict(zip(real.report_id, real.findings + " " + real.impression, strict=True))
    kept = written = 0
    for study in studies:
        words = Counter(re.findall(r"\w+", " ".join(sentence.text for sentence in study.sentences)))
        truth = Counter(re.findall(r"\w+", texts[study.patient_id].lower()))
        assert words <= truth
        kept, written = kept + words.total(), written + truth.total()
    assert kept > 0.97 * written  # enumeration marks and sentences of one word are dropped
