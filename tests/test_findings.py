"""What label names mean: against the prompts of the measured tables, and against the publishers' own lists."""

import re

import pytest

from lingula.corpora.covid19_images import LABELS as COVID19_IMAGES
from lingula.corpora.covidx import CLASSES as COVIDX
from lingula.corpora.kermany import CLASSES as KERMANY
from lingula.corpora.mimic_cxr import LABELS as MIMIC
from lingula.corpora.nih_chestxray14 import FINDINGS as NIH
from lingula.corpora.rsna_pneumonia import CLASSES as RSNA
from lingula.corpora.synthetic.reported import DRAWN
from lingula.findings import CHEXBERT, CHEXPERT, CHEXPERT_COMPETITION, NOTHING_WRONG, is_finding, prompts_of, words_of

HEALTHY = {"No Finding", "no_finding", "normal", "Normal"}
OTHER_WORDS = {"Pleural Other", "Support Devices", "covid19", "viral_other", "bacterial", "fungal", "lipoid", RSNA[1]}
FIELD = sorted(
    {
        *DRAWN,
        "normal",
        *KERMANY,
        "pneumonia",
        *CHEXPERT,
        *MIMIC,
        *NIH,
        *COVID19_IMAGES,
        *RSNA,
        *COVIDX[1],
        "pneumothorax",
    }
)


@pytest.mark.parametrize("name", FIELD)
def test_names_of_our_corpora(name):
    words = name.replace("_", " ").lower()
    prompts = prompts_of(name)
    assert is_finding(name) is (name not in HEALTHY)
    if name in HEALTHY:
        assert prompts == NOTHING_WRONG
    elif name not in OTHER_WORDS:  # the measured tables have these, letter by letter
        assert prompts == ((f"there is {words}.",), (f"there is no {words}.",))
    for sentence in (*prompts.present, *prompts.absent):
        assert len(re.findall(r"\b(?:no|not|without|normal)\b", sentence)) <= 1, "two negations"
    assert not set(prompts.present) & set(prompts.absent)


@pytest.mark.parametrize(
    ("names", "present", "absent"),
    [
        (
            "No Finding,no finding,NO_FINDING,NoFinding,no-findings,normal,Normal,NORMAL,healthy,Healthy Control,none,"
            "No abnormality,normal CXR,Clear lungs,Unremarkable,within_normal_limits,not abnormal,disease-free",
            "there is no acute abnormality.|the lungs are clear.",
            "there is an abnormality.",
        ),
        (
            "abnormal,Abnormality,any_finding,finding,not normal,Not_Normal,No normal",
            "there is an abnormality.",
            "there is no acute abnormality.|the lungs are clear.",
        ),
        (
            "no_effusion,No Effusion,NoEffusion,without effusion,absence of effusion,effusion_absent,Effusion negative,"
            "negative for effusion,free_of_effusion",
            "there is no effusion.",
            "there is effusion.",
        ),
        ("PleuralEffusion,pleural_effusion,Pleural-Effusion,PLEURAL EFFUSION", "there is pleural effusion.", ""),
        ("Edema present,presence_of_edema,edema_positive,EDEMA", "there is edema.", "there is no edema."),
        (
            "Support Devices,support_devices,SupportDevices",
            "there are support devices.",
            "there are no support devices.",
        ),
        ("no support devices", "there are no support devices.", "there are support devices."),
        ("infiltrates,Infiltrates", "there are infiltrates.", "there are no infiltrates."),
        ("Nodule/Mass,nodule / mass", "there is nodule or mass.", "there is no nodule or mass."),
        ("covid19,COVID19,COVID-19", "there is covid-19.", "there is no covid-19."),
        ("no covid19", "there is no covid-19.", "there is covid-19."),
        ("COVID-2019", "there is covid-19.", ""),
        ("SARS-CoV-2,sars_cov_2", "there is sars-cov-2.", ""),
        ("TB/COVID,tb / covid", "there is tb or covid.", ""),
        (
            "has_pneumothorax,is_pneumothorax,with pneumothorax,hasPneumothorax,Has Pneumothorax",
            "there is pneumothorax.",
            "there is no pneumothorax.",
        ),
        ("has_no_pneumothorax,hasNoPneumothorax,w/o pneumothorax", "there is no pneumothorax.", ""),
        ("is_normal,has no finding", "there is no acute abnormality.|the lungs are clear.", ""),
        ("sick,Ill,is_abnormal", "there is an abnormality.", ""),
        ("H1N1", "there is h1n1.", ""),
        ("type 2 diabetes", "there is type 2 diabetes.", ""),
        ("ILD", "there is interstitial lung disease.", ""),
        ("Other lesion", "there is another lesion.", "there is no other lesion."),
        ("free air,Free_Air", "there is free air.", "there is no free air."),
        ("non axial articular degenerative changes", "there are non axial articular degenerative changes.", ""),
        ("subcutaneous_emphysema", "there is subcutaneous emphysema.", "there is no subcutaneous emphysema."),
    ],
)
def test_what_a_name_says(names, present, absent):
    for name in names.split(","):
        prompts = prompts_of(name)
        assert prompts is not None, name
        assert "|".join(prompts.present) == present, name
        assert not absent or "|".join(prompts.absent) == absent, name


@pytest.mark.parametrize(
    ("names", "finding"),
    [
        (
            "pneumonia_neg,Erguss negativ,unlikely pneumonia,pneumonia_unlikely,rule out TB,rule-out TB,r/o TB,"
            "exclude pneumonia,pneumonia_excluded,TB resolved,Pneumonie unwahrscheinlich,pneumonia?,!pneumonia,"
            "size>3cm",
            False,
        ),
        ("Edema=0,Edema_0,Edema_0.0,Edema: 0,Edema (0),Edema_-1.0,Edema_No,Edema=False,Edema_nan,0,label_0", False),
        ("Edema=1,Edema_1,Edema_1.0,Edema-1,Edema_2,Edema_True,Edema=yes,1,2,10,label_1,has_edema_1", True),
        ("class1,Class A,label,target2,a,B,x1,any,any class,category_b,A/B", True),
        ("n/a", False),
        ("unchanged,exclude,suboptimal study,unknown,negative,normal variant", False),
        ("kein Erguss,ohne Befund,unauffällig,正常,未见异常", False),
        ("positive,non covid,non-specific opacity,no normal variant,+", True),
    ],
)
def test_names_that_do_not_tell_have_no_prompts(names, finding):
    for name in names.split(","):
        assert prompts_of(name) is None
        assert is_finding(name) is finding


def test_findings_in_other_languages_are_findings():
    assert is_finding("Erguss")
    assert is_finding("胸腔积液")
    assert not is_finding("Effusion absent")


def test_positive_and_negative_mean_something_in_their_corpus():
    for name, sentence, finding in (
        ("positive", "there is covid-19.", True),
        ("negative", "there is no covid-19.", False),
    ):
        assert prompts_of(name, "covidx").present == (sentence,)
        assert is_finding(name, "covidx") is finding


def test_words():
    assert words_of("Pleural_Thickening") == "pleural thickening"
    assert words_of("Lines & Tubes") == "lines and tubes"
    assert words_of("  Enlarged\tPA ") == "enlarged pulmonary artery"


def test_the_labels_of_chexpert_stand_in_the_orders_of_their_publishers():
    """The header of CheXpert's train.csv, and that of MIMIC-CXR-JPG's mimic-cxr-2.0.0-chexpert.csv."""
    header = "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia"
    header += ",Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    assert tuple(header.split(",")) == CHEXPERT
    header = "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity"
    header += ",No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
    assert tuple(header.split(",")) == MIMIC
    heads = "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis"
    heads += ",Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,No Finding"  # CheXbert's own list
    assert tuple(heads.split(",")) == CHEXBERT
    assert set(CHEXPERT_COMPETITION) < set(CHEXPERT)
    assert len(CHEXPERT_COMPETITION) == 5
