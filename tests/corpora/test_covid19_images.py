"""The COVID-19 Image Data Collection: its official layout as written here, and its compact copy where it is at hand."""

import csv
import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lingula.cli import main
from lingula.corpora.covid19_images import LABELS, Covid19Images, labels_of
from lingula.data.preparation import prepare
from lingula.data.prepared import PreparedCorpus
from lingula.data.study import SPLITS, Box, LeftOut, Study
from lingula.registry import UserError

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")

HEADER = (  # of the release; it ends in a comma, and so does every row
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,"
    "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,view,"
    "modality,date,location,folder,filename,doi,url,license,clinical_notes,other_notes,"
)
FILMS = [
    {
        "patientid": "2",
        "finding": "Pneumonia/Viral/COVID-19",
        "view": "PA",
        "modality": "X-ray",
        "location": "Cho Ray Hospital, Ho Chi Minh City, Vietnam",
        "folder": "images",
        "filename": "auntminnie-a-2020_01_28.jpeg",
        "clinical_notes": 'A 65-year-old man, "low-grade" fever. Chest radiographs showed an infiltrate.',
    },
    {"patientid": "2", "view": "L", "filename": "auntminnie-b-2020_01_28.png", "clinical_notes": "Day 4"},
    {"patientid": "5", "finding": "Pneumonia", "filename": "ARDSSevere.png", "license": "CC BY-SA"},
    {"patientid": "17", "modality": "CT", "view": "Axial", "folder": "volumes", "filename": "radiopaedia_10.nii.gz"},
    {"patientid": "", "filename": "nobody.png"},
    {
        "patientid": "322b",
        "finding": "todo",
        "view": "AP Supine",
        "filename": "1.CXR.pdf-000-fig1a.png",
        "license": "CC BY-NC-SA",
        "clinical_notes": "Bilateral opacities are seen.",
    },
]
SIZES = {
    "auntminnie-a-2020_01_28.jpeg": (24, 30),  # height, width
    "auntminnie-b-2020_01_28.png": (20, 20),
    "ARDSSevere.png": (30, 20),
    "1.CXR.pdf-000-fig1a.png": (20, 20),
    "nobody.png": (20, 20),
}


@pytest.fixture
def root(tmp_path):
    return clone(tmp_path / "covid-chestxray-dataset")


def clone(root):
    """The clone of the repository, as far as it is looked at."""
    masks = root / "annotations" / "lungVAE-masks"
    masks.mkdir(parents=True)
    (root / "images").mkdir()
    columns = HEADER.split(",")
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for film in FILMS:
            full = {"modality": "X-ray", "folder": "images", "finding": "Pneumonia/Viral/SARS"} | film
            writer.writerow(full.get(column, "") for column in columns)
    for number, (name, size) in enumerate(SIZES.items()):
        Image.fromarray(np.full(size, 40 * number, np.uint8)).save(root / "images" / name)
    lung = np.zeros(SIZES["1.CXR.pdf-000-fig1a.png"], np.uint8)
    lung[5:15, :10] = 255
    Image.fromarray(lung).save(masks / "1.CXR.pdf-000-fig1a_mask.png")
    (masks / "README.md").write_text("## lungVAE-masks\n")
    nulls = [None] * 4
    lungs = {
        "info": {"creator": "General Blockchain, Inc."},
        "categories": [
            {"supercategory": "Lungs", "id": 1, "name": "Right Lung"},
            {"supercategory": "Lungs", "id": 2, "name": "Left Lung"},
        ],
        "images": [
            {"license": 1, "file_name": "auntminnie-a-2020_01_28.jpeg", "height": 24, "width": 30, "id": 1},
            {"license": 1, "file_name": "ARDSSevere.png", "height": 30, "width": 20, "id": 2},
        ],
        "annotations": [
            {"segmentation": [], "area": 80, "image_id": 1, "bbox": [2, 3, 8, 10], "id": 1, "category_id": 1},
            {"segmentation": [], "area": 80, "image_id": 1, "bbox": [16, 3, 8, 10], "id": 2, "category_id": 2},
            {"segmentation": [], "area": 80, "image_id": 2, "bbox": [1, 2, 3, 4], "id": 3, "category_id": 1},
            {"segmentation": [], "area": None, "image_id": 2, "bbox": nulls, "id": 4, "category_id": 2},
        ],
    }
    (root / "annotations" / "imageannotation_ai_lung_bounding_boxes.json").write_text(json.dumps(lungs))
    return root


def by_id(root, **options):
    rows = list(Covid19Images(root, **options).studies())
    return {row.study_id: row for row in rows if isinstance(row, Study)}, [
        row for row in rows if isinstance(row, LeftOut)
    ]


def test_the_official_release(root):
    studies, left_out = by_id(root)
    assert list(studies) == [
        "auntminnie-a-2020_01_28.jpeg",
        "auntminnie-b-2020_01_28.png",
        "ARDSSevere.png",
        "1.CXR.pdf-000-fig1a.png",
    ]
    first, short, without, last = studies.values()
    assert (first.patient_id, first.split, first.view, first.row) == ("2", None, "PA", "row 2 of metadata.csv")
    assert first.image == root / "images" / "auntminnie-a-2020_01_28.jpeg"
    assert [sentence.text for sentence in first.sentences] == [
        'a 65-year-old man, "low-grade" fever.',
        "chest radiographs showed an infiltrate.",
    ]
    assert first.labels["covid19"] == 1
    assert short.sentences == without.sentences == ()
    assert short.labels["viral_other"] == 1
    assert last.patient_id == "322b"
    assert all(math.isnan(value) for value in last.labels.values())
    assert all(list(study.labels) == list(LABELS) for study in studies.values())
    assert left_out == [
        LeftOut("row 5 of metadata.csv", "not an X-ray: CT", bad=False),
        LeftOut("row 6 of metadata.csv", "no id: column 'patientid' is empty", bad=True),
    ]


def test_official_boxes_and_masks(root):
    first, short, without, last = by_id(root)[0].values()
    assert first.boxes == (Box("right_lung", 2, 3, 10, 13), Box("left_lung", 16, 3, 24, 13))
    assert first.annotated == ("right_lung", "left_lung")
    assert without.boxes == (Box("right_lung", 1, 2, 4, 6),)
    assert without.annotated == ("right_lung",)  # the left one could not be drawn
    assert short.boxes == short.annotated == last.annotated == ()
    assert last.masks == {"lung_vae": root / "annotations" / "lungVAE-masks" / "1.CXR.pdf-000-fig1a_mask.png"}
    assert first.masks == short.masks == without.masks == {}


def test_without_annotations_and_with_some_views(root):
    for file in sorted((root / "annotations").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    studies, left_out = by_id(root, views=["pa", "AP supine"])
    assert list(studies) == ["auntminnie-a-2020_01_28.jpeg", "1.CXR.pdf-000-fig1a.png"]
    assert all(study.boxes == study.annotated == () and study.masks == {} for study in studies.values())
    assert [row.reason for row in left_out if row.reason.startswith("view")] == [
        "view not among pa, AP supine: 'L'",
        "view not among pa, AP supine: ''",
    ]


@pytest.mark.parametrize(
    ("finding", "present", "unknown"),
    [
        ("Pneumonia/Viral/COVID-19", "covid19", "ards"),
        ("Pneumonia/Viral/SARS", "viral_other", "ards"),
        ("Pneumonia/Viral/Influenza/H1N1", "viral_other", "ards"),
        ("Pneumonia/Viral/Herpes ", "viral_other", "ards"),
        ("Pneumonia/Viral", "", "ards covid19 viral_other"),
        ("Pneumonia/Bacterial", "bacterial", "ards"),
        ("Pneumonia/Bacterial/Staphylococcus/MRSA", "bacterial", "ards"),
        ("Pneumonia/Fungal/Pneumocystis", "fungal", "ards"),
        ("Pneumonia/Lipoid", "lipoid", "ards"),
        ("Pneumonia/Aspiration", "", "ards"),
        ("Tuberculosis", "", "ards bacterial"),
        ("No Finding", "no_finding", ""),
        ("Pneumonia", "", "covid19 viral_other bacterial fungal lipoid ards"),
        ("Pneumonia/Something", "", "covid19 viral_other bacterial fungal lipoid ards"),
        ("todo", "", " ".join(LABELS)),
        ("Unknown", "", " ".join(LABELS)),
        ("", "", " ".join(LABELS)),
    ],
)
def test_labels_of_every_finding(finding, present, unknown):
    labels = labels_of(finding)
    assert {name for name, value in labels.items() if value == 1} == set(present.split())
    assert {name for name, value in labels.items() if math.isnan(value)} == set(unknown.split())
    assert set(labels) == set(LABELS)


def test_prepared_from_the_command_line(root, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["prepare", "covid19-images", "--root", str(root), "--out", str(out), "--size", "30", "--workers", "0"]
    with pytest.raises(SystemExit):
        main(words)
    assert "row 6 of metadata.csv: no id: column 'patientid' is empty" in capsys.readouterr().err
    main([*words, "--skip_bad_rows"])
    said = capsys.readouterr().out
    assert "NC means non-commercial: 3 none stated, 1 CC BY-SA, 1 CC BY-NC-SA" in said
    assert "left out 1 rows: not an X-ray" in said
    corpus = PreparedCorpus.open(out)
    assert len(corpus) == 4
    assert "non-commercial" in corpus.meta["licence"]
    assert corpus.rows_with_boxes(["left_lung"]).tolist() == [0]
    assert corpus.rows_with_boxes(["right_lung"]).tolist() == [0, 2]
    assert corpus.boxes().values.tolist()[0] == [0, "right_lung", 2, 6, 10, 16]  # 24 by 30 pixels: 3 rows of padding
    lung = np.zeros((30, 30), bool)
    lung[8:22, :15] = True  # rows 5 to 14 and columns 0 to 9, one and a half times as large
    seen = corpus.masks([3], "lung_vae")[0]
    assert (seen != lung).sum() <= 30
    splits = corpus.to_pandas()["split"].tolist()
    assert splits[0] == splits[1]  # one patient


def test_columns_boxes_and_folders_that_are_missing_are_named(root):
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(text.replace("clinical_notes", "clinical notes"))
    with pytest.raises(UserError, match=r"metadata\.csv has no column 'clinical_notes'; did you mean 'clinical notes'"):
        list(Covid19Images(root).studies())
    (root / "metadata.csv").write_text(text)
    boxes = root / "annotations" / "imageannotation_ai_lung_bounding_boxes.json"
    boxes.write_text(boxes.read_text().replace("Left Lung", "Heart"))
    with pytest.raises(UserError, match="has boxes of 'Heart'; expected Right Lung and Left Lung"):
        list(Covid19Images(root).studies())
    (root / "images").rename(root / "pictures")
    with pytest.raises(UserError, match="no folder images in"):
        list(Covid19Images(root).studies())


def test_the_fingerprint_follows_the_views_and_the_names_of_the_masks(root):
    prints = [Covid19Images(root).fingerprint(), Covid19Images(root, views=["PA"]).fingerprint()]
    (root / "annotations" / "lungVAE-masks" / "ARDSSevere_mask.png").touch()
    prints.append(Covid19Images(root).fingerprint())
    assert len(set(prints)) == len(prints)


# The compact copy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def compact(tmp_path):
    return compact_copy(tmp_path / "covid_cxr")


def compact_copy(root):
    for folder in ("images_256", "masks_256/lung_v7", "masks_256/ground_glass", "boxes"):
        (root / folder).mkdir(parents=True)
    (root / "reports.csv").write_text(
        "image_id,patient_id,split,image_path,view,findings,impression,text,licence\n"
        "c0,g1,train,images_256/c0.jpg,PA,Patchy consolidations of both lungs.,PCR was positive.,All of it.,CC BY 4.0\n"
        "c1,g2,val,images_256/c1.jpg,,,,Fever for two weeks. Heart is large.,CC BY-NC-SA\n"
        "c2,g3,test,images_256/c2.jpg,lateral,,,,CC BY 4.0\n"
        "c3,g1,train,images_256/c3.jpg,AP,Lungs clear.,,Cough for a week. Lungs clear.,CC BY 4.0\n"
    )
    (root / "labels.csv").write_text(f"image_id,{','.join(LABELS)}\nc0,1,0,0,0,0,1,0\nc2,0,0,0,0,0,0,1\n")
    (root / "segmentation.csv").write_text(
        "image_id,target,mask_path\n"
        "c0,lung_v7,masks_256/lung_v7/c0.png\nc0,ground_glass,masks_256/ground_glass/c0.png\n"
        "c2,lung_v7,masks_256/lung_v7/c2.png\n"
    )
    for name in ("c0", "c1", "c2", "c3"):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "images_256" / f"{name}.jpg")
    for file in ("lung_v7/c0", "lung_v7/c2", "ground_glass/c0"):
        Image.fromarray(np.eye(16) > 0).save(root / "masks_256" / f"{file}.png")
    names = ["right_lung", "left_lung", "ground_glass", "consolidation"]
    for split, image, lesions, box in (("train", "c0", True, 3), ("val", "c1", False, 1), ("test", "c2", True, 4)):
        content = {
            "categories": [{"id": number + 1, "name": name} for number, name in enumerate(names)],
            "images": [{"id": 1, "file_name": f"images_256/{image}.jpg", "lesions_annotated": lesions}],
            "annotations": [{"id": 0, "image_id": 1, "category_id": box, "bbox": [1, 2, 3, 4]}],
        }
        (root / "boxes" / f"instances_{split}.json").write_text(json.dumps(content))
    (root / "boxes" / "instances_test.json").unlink()
    return root


DOWNLOADS = {"official": clone, "compact": compact_copy}
OPTIONAL = ["imageannotation_ai_lung_bounding_boxes.json", "instances_*.json", "segmentation.csv"]


def test_the_compact_copy(compact, tmp_path):
    first, second, third, fourth = by_id(compact)[0].values()
    assert [(row.patient_id, row.split, row.view) for row in (first, second, third)] == [
        ("g1", "train", "PA"),
        ("g2", "val", ""),
        ("g3", "test", "lateral"),
    ]
    assert [sentence.text for sentence in first.sentences] == ["patchy consolidations of both lungs."]
    assert [sentence.text for sentence in second.sentences] == ["fever for two weeks.", "heart is large."]
    assert third.sentences == ()
    assert [sentence.text for sentence in fourth.sentences] == ["cough for a week.", "lungs clear."]
    assert first.labels == dict.fromkeys(LABELS, 0) | {"covid19": 1, "ards": 1}
    assert second.labels == {}
    assert set(first.masks) == {"lung_v7", "ground_glass"}
    assert second.masks == {}
    assert first.annotated == ("right_lung", "left_lung", "ground_glass", "consolidation")
    assert second.annotated == ("right_lung", "left_lung")  # lesions were not looked for
    assert third.annotated == ()  # not listed
    assert first.boxes == (Box("ground_glass", 1, 2, 4, 6),)
    assert Covid19Images(compact).remarks[0].endswith("non-commercial: 3 CC BY 4.0, 1 CC BY-NC-SA")
    corpus = prepare(Covid19Images(compact), tmp_path / "out", size=16, workers=0, log=lambda line: None)
    assert corpus.label_names == list(LABELS)
    assert np.isnan(corpus.labels(["covid19"])[1, 0])


def test_errors_of_the_compact_copy(compact):
    before = Covid19Images(compact).fingerprint()
    text = (compact / "labels.csv").read_text()
    (compact / "labels.csv").write_text(text.replace("c2,0", "c2,maybe"))
    assert Covid19Images(compact).fingerprint() != before
    with pytest.raises(UserError, match=r"row 3 of labels\.csv: 'maybe' in label column 'covid19'"):
        list(Covid19Images(compact).studies())
    (compact / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"no labels\.csv in"):
        list(Covid19Images(compact).studies())


@pytest.fixture(scope="module")
def real():
    folder = DATA / "covid_cxr"
    if not folder.is_dir():
        pytest.skip(f"covid_cxr is not on this machine: no {folder} (set LINGULA_DATA)")
    return [row for row in Covid19Images(folder).studies() if isinstance(row, Study)]


def counted(rows, has):
    """By split."""
    return [sum(bool(has(row)) for row in rows if row.split == split) for split in SPLITS]


def test_counts_that_the_compact_copy_states(real):
    assert counted(real, lambda row: True) == [200, 40, 55]
    assert [len({row.patient_id for row in real if row.split == split}) for split in SPLITS] == [98, 18, 34]
    assert counted(real, lambda row: row.sentences) == [148, 29, 47]
    for name, counts in {
        "covid19": [122, 20, 35],
        "bacterial": [17, 9, 4],
        "fungal": [7, 3, 2],
        "no_finding": [7, 1, 1],
    }.items():
        assert counted(real, lambda row, name=name: row.labels.get(name) == 1) == counts
    for name, counts in {
        "lung_v7": [103, 20, 28],
        "lung_vae": [62, 11, 15],
        "ground_glass": [19, 4, 7],
        "consolidation": [7, 2, 2],
    }.items():
        assert counted(real, lambda row, name=name: name in row.masks) == counts
    for name in ("right_lung", "left_lung"):
        assert counted(real, lambda row, name=name: name in row.annotated) == [176, 32, 47]
        assert counted(real, lambda row, name=name: any(box.name == name for box in row.boxes)) == [176, 32, 47]
    for name in ("ground_glass", "consolidation"):
        assert counted(real, lambda row, name=name: name in row.annotated) == [19, 4, 8]
    assert Counter(box.name for row in real for box in row.boxes)["right_lung"] == 255
    assert all(row.image.is_file() and all(mask.is_file() for mask in row.masks.values()) for row in real)
