"""Sentences against hand-made truth, 3,141 real reports, and properties of every text."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingula.data.sentences import count_tokens, report_sentences, split_sentences

DATA = Path(os.environ.get("LINGULA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
IU_REPORTS = DATA / "iu_reports" / "reports.csv"

# Sentences ------------------------------------------------------------------------------------------------------------

SENTENCES: dict[str, list[str]] = {
    # abbreviations
    "Discussed with Dr. Smith today. He agrees.": ["Discussed with Dr. Smith today.", "He agrees."],
    "Atelectasis vs. pneumonia. No effusion.": ["Atelectasis vs. pneumonia.", "No effusion."],
    "Lines, e.g. Port-A-Cath, i.e. central. Fine.": ["Lines, e.g. Port-A-Cath, i.e. central.", "Fine."],
    "Tip approx. 3 cm above the carina. Clear.": ["Tip approx. 3 cm above the carina.", "Clear."],
    "Tube No. 5 is in place. Tip is high.": ["Tube No. 5 is in place.", "Tip is high."],
    "Seen at 5 a.m. by the team. Stable.": ["Seen at 5 a.m. by the team.", "Stable."],
    "Called at 6 p.m. The tube was moved.": ["Called at 6 p.m.", "The tube was moved."],
    "PA and lat. views of the chest.": ["PA and lat. views of the chest."],
    "Read by J. R. Smith, M.D. on Monday.": ["Read by J. R. Smith, M.D. on Monday."],
    "Dictated by John F. Kennedy. Signed.": ["Dictated by John F. Kennedy.", "Signed."],
    "Known hepatitis B. Stable scarring.": ["Known hepatitis B.", "Stable scarring."],
    "R. lower lobe opacity. Compared with Jan. 2010.": ["R. lower lobe opacity.", "Compared with Jan. 2010."],
    # decimals and units
    "A 1.5 cm nodule. It was 1.2 cm.": ["A 1.5 cm nodule.", "It was 1.2 cm."],
    "Nodule of 1.5 cm. in the left apex. Unchanged.": ["Nodule of 1.5 cm. in the left apex.", "Unchanged."],
    "Mass of 2.5 x 3.4 cm. No effusion.": ["Mass of 2.5 x 3.4 cm.", "No effusion."],
    # enumerations
    "1. No effusion. 2. Stable heart.": ["No effusion.", "Stable heart."],
    "1. No effusion 2. Stable heart": ["No effusion", "Stable heart"],
    "1) Clear lungs.\n2) Normal heart.": ["Clear lungs.", "Normal heart."],
    "(1) Clear lungs. (2) Normal heart.": ["Clear lungs.", "Normal heart."],
    "1.No effusion.\n2.Heart normal": ["No effusion.", "Heart normal"],
    "Clear lungs\n1. no effusion\n2. heart normal": ["Clear lungs", "no effusion", "heart normal"],
    "Impression: 1. Old fracture of rib 2. No pneumothorax.": [
        "Impression:",
        "Old fracture of rib 2.",
        "No pneumothorax.",
    ],
    "Hand 1. Fracture. 2. Swelling. Chest 1. Clear.": ["Hand", "Fracture.", "Swelling.", "Chest", "Clear."],
    "Pneumothorax? No. 2. Heart is large.": ["Pneumothorax?", "No.", "Heart is large."],
    # de-identification marks
    "Compared to XXXX. XXXX opacity is new.": ["Compared to XXXX.", "XXXX opacity is new."],
    "Findings told to Dr. ___ at ___. Agreed.": ["Findings told to Dr. ___ at ___.", "Agreed."],
    "Since [**2115-4-5**]. Dr. [**First Name8 (NamePattern2) 12. **] saw it.": [
        "Since [**2115-4-5**].",
        "Dr. [**First Name8 (NamePattern2) 12. **] saw it.",
    ],
    # lines, bullets, ends
    "There is no focal\nconsolidation or\r\neffusion. Heart is normal": [
        "There is no focal consolidation or effusion.",
        "Heart is normal",
    ],
    "- No effusion\n- Heart is normal\n• Clear lungs": ["No effusion", "Heart is normal", "Clear lungs"],
    "Clear lungs\n\nNormal heart": ["Clear lungs", "Normal heart"],
    "No change - the heart is large.": ["No change - the heart is large."],
    "The lungs are clear.The heart is normal.": ["The lungs are clear.", "The heart is normal."],
    "no effusion. the heart is normal.": ["no effusion.", "the heart is normal."],
    "Mass (see above.) Biopsy advised.": ["Mass (see above.)", "Biopsy advised."],
    "? pneumonia. Cough ? duration": ["? pneumonia.", "Cough ? duration"],
    "Is it new? Yes! Done.. .": ["Is it new?", "Yes!", "Done.."],
    "Opacity in the left ... lower lobe.": ["Opacity in the left ... lower lobe."],
    # German, French, Spanish
    "Erguss li. Unterlappen, V. a. Pneumonie. Z. B. Erguss ca. 3 cm bds. basal.": [
        "Erguss li. Unterlappen, V. a. Pneumonie.",
        "Z. B. Erguss ca. 3 cm bds. basal.",
    ],
    "Verdichtung, z. B. Narbe. Kein Erguss.": ["Verdichtung, z. B. Narbe.", "Kein Erguss."],
    "Erguss li. Kein Pneumothorax. Stauung bds. Das Herz ist groß. Erguss re. Unauffällige Hili.": [
        "Erguss li.",
        "Kein Pneumothorax.",
        "Stauung bds.",
        "Das Herz ist groß.",
        "Erguss re.",
        "Unauffällige Hili.",
    ],
    "Derrame izq. No se observa neumotórax. Nódulo en lóbulo sup. dcho. de 3 cm.": [
        "Derrame izq.",
        "No se observa neumotórax.",
        "Nódulo en lóbulo sup. dcho. de 3 cm.",
    ],
    "Versamento dx. Cuore nei limiti.": ["Versamento dx.", "Cuore nei limiti."],
    "Derrame pleural à esq. Coração normal.": ["Derrame pleural à esq.", "Coração normal."],
    "Fraktur der 3. Rippe re. lateral. Kein Erguss.": ["Fraktur der 3. Rippe re. lateral.", "Kein Erguss."],
    "1. Fraktur der 2. Rippe. 2. Kein Erguss.": ["Fraktur der 2. Rippe.", "Kein Erguss."],
    "Voraufnahme vom 12.03.2024. Herz normal. Am 12.03. 14 Uhr.": [
        "Voraufnahme vom 12.03.2024.",
        "Herz normal.",
        "Am 12.03. 14 Uhr.",
    ],
    "Herz o. B. Lunge frei. Rücksprache mit Fr. Dr. Maier.": [
        "Herz o. B.",
        "Lunge frei.",
        "Rücksprache mit Fr. Dr. Maier.",
    ],
    "Opacités, p. ex. infiltrats. Épanchement de env. 3 cm. Stable.État normal.": [
        "Opacités, p. ex. infiltrats.",
        "Épanchement de env. 3 cm.",
        "Stable.",
        "État normal.",
    ],
    "¿Derrame? ¡No! Nódulo de aprox. 5 mm. Sin cambios.": [
        "¿Derrame?",
        "¡No!",
        "Nódulo de aprox. 5 mm.",
        "Sin cambios.",
    ],
    "Z.n. Sternotomie. Z. n. Fraktur. Zn. Insult.": ["Z.n. Sternotomie.", "Z. n. Fraktur.", "Zn. Insult."],
    "Zustand n. OP. St. n. Fraktur.": ["Zustand n. OP.", "St. n. Fraktur."],
    "Voraufnahme v. 3.4.2020. Stauung II. Grades.": ["Voraufnahme v. 3.4.2020.", "Stauung II. Grades."],
    "Stauung 2. Grades, a.e. postop. Genese.": ["Stauung 2. Grades, a.e. postop. Genese."],
    "Das Herz ist postop. Normal groß.": ["Das Herz ist postop. Normal groß."],
    # the same letters in English
    "Heart size nl. Lungs are clear.": ["Heart size nl.", "Lungs are clear."],
    "Change is not sig. Heart ok.": ["Change is not sig.", "Heart ok."],
    "No PTX per pat. Stable.": ["No PTX per pat.", "Stable."],
    "Stable postop. Keep in mind. Tube of 14 Fr. The end.": [
        "Stable postop.",
        "Keep in mind.",
        "Tube of 14 Fr.",
        "The end.",
    ],
    # figures that are no marks of a list
    "Lesion in seg. 6. No change.": ["Lesion in seg. 6.", "No change."],
    "BI-RADS cat. 2. Clear.": ["BI-RADS cat. 2.", "Clear."],
    "Seen on Jan. 5. The heart is large.": ["Seen on Jan. 5.", "The heart is large."],
    "1. Seen on January 2. The heart is large. 2. Done.": ["Seen on January 2.", "The heart is large.", "Done."],
    "PA and lat. 2. Heart large.": ["PA and lat.", "Heart large."],
    # other scripts
    "1.两肺清晰;2.心影不大;3.未见积液": ["两肺清晰;", "心影不大;", "未见积液"],
    "１．两肺清晰．２．心影不大．３．未见积液": ["两肺清晰．", "心影不大．", "未见积液"],
    "１．两肺清晰；２．心影不大；３．心胸比０．５２．": ["两肺清晰；", "心影不大；", "心胸比０．５２．"],
    "双肺纹理清晰。心影大小正常。未见胸腔积液。": ["双肺纹理清晰。", "心影大小正常。", "未见胸腔积液。"],
    "双肺未见异常。": ["双肺未见异常。"],
    "1、双肺纹理增多；2、心影增大。3.主动脉硬化": ["双肺纹理增多；", "心影增大。", "主动脉硬化"],
    "（1）双肺清晰。（2）心影正常": ["双肺清晰。", "心影正常"],
    "①双肺清晰②心影正常": ["双肺清晰", "心影正常"],
    "心胸比0.52.双肺清晰.直径1.5cm.": ["心胸比0.52.", "双肺清晰.", "直径1.5cm."],
    "双肺纹理\n清晰。": ["双肺纹理清晰。"],
    "「胸水なし。」心拡大を認めます。再検？": ["「胸水なし。」", "心拡大を認めます。", "再検？"],
    "फेफड़े साफ़ हैं। हृदय सामान्य है।": ["फेफड़े साफ़ हैं।", "हृदय सामान्य है।"],
    "ปอดทั้งสองข้างปกติ ไม่พบน้ำ\nหัวใจขนาดปกติ": ["ปอดทั้งสองข้างปกติ ไม่พบน้ำ", "หัวใจขนาดปกติ"],
    "القلب طبيعي۔ هل يوجد انصباب؟ لا": ["القلب طبيعي۔", "هل يوجد انصباب؟", "لا"],
    "": [],
    " \n . - ": [],
}


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences(text: str) -> None:
    assert split_sentences(text) == SENTENCES[text]


PIECES = (
    "No effusion. heart Heart normal Dr. vs. e.g. 1. 2. 3) (4) 1.5 cm. cm XXXX ___ [**2115-4-5**] No. 5 12. a.m. ? ! . "
    "- • J. B. (see above.) \n \n\n \r\n rib Impression: \t lungs.The 1.No "
    "z. B. der 3. Erguss. 双肺。心影 1、双 ① । ¿No? ;2.两 ．２．心 seg. Jan. nl. II. Grades Z.n. Fr."
)
TEXTS = st.lists(st.sampled_from(PIECES.split(" ")), max_size=25).map(" ".join) | st.text(max_size=80)
MARK = re.compile(r"\d{1,2}")


def missing_words(text: str, sentences: list[str]) -> list[str]:
    """The words of the text that its sentences lack; fails where they have other words or another order."""
    left = iter(re.findall(r"\w+", re.sub("[①-⑳]", " ", text)))
    missing = []
    for word in re.findall(r"\w+", "\n".join(sentences)):
        for candidate in left:
            if candidate == word:
                break
            missing.append(candidate)
        else:
            raise AssertionError(f"{word!r} is not in {text!r}, or not in this place")
    return missing + list(left)


@given(TEXTS)
def test_no_word_is_lost_or_invented_but_enumeration_marks(text: str) -> None:
    sentences = split_sentences(text)
    for word in missing_words(text, sentences):
        assert MARK.fullmatch(word)
        assert re.search(rf"[(（]?{word}[.)）、．]", text)


@given(TEXTS)
def test_sentences_are_lines_with_words(text: str) -> None:
    for sentence in split_sentences(text):
        assert not re.search(r"[\n\r\t]|  ", sentence)
        assert sentence == sentence.strip()
        assert re.search(r"\w", sentence)
        assert not re.match(r"\(?\d{1,2}[.)] ", sentence)


@given(st.lists(st.sampled_from(["No effusion is seen.", "Heart size is normal.", "A 1.5 cm nodule."]), max_size=8))
def test_joined_sentences_come_apart_however_they_are_laid_out(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences
    assert split_sentences("\n".join(sentences)) == sentences
    assert split_sentences(" ".join(sentences).replace(" ", "\n")) == sentences
    assert split_sentences("".join(f"{n}. {s}\n" for n, s in enumerate(sentences, 1))) == sentences
    assert split_sentences("".join(f"- {s[:-1]}\n" for s in sentences)) == [s[:-1] for s in sentences]


def test_report_sentences_are_lower_case_and_of_two_words_at_least() -> None:
    text = "Normal. Heart SIZE is normal. XXXX. Emphysema.\nNo acute disease"
    assert report_sentences(text) == ["heart size is normal.", "no acute disease"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("No x-ray, 1.5 cm.", 6),  # no, x, ray, 1, 5, cm
        ("Größe und Épanchement", 3),
        ("双肺未见异常。", 6),
        ("胸部X線 2枚", 6),
        ("हृदय सामान्य है।", 3),  # vowel signs part no word
        ("หัวใจขนาดปกติ", 4),  # 13 letters and signs
        ("", 0),
    ],
)
def test_tokens_are_words_and_characters_of_scripts_without_spaces(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_a_chinese_sentence_is_long_enough_and_a_word_of_two_characters_is_none() -> None:
    assert report_sentences("双肺未见异常。正常。无。") == ["双肺未见异常。", "正常。"]


# Real reports ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iu_texts() -> list[str]:
    if not IU_REPORTS.is_file():
        pytest.skip("the reports of Indiana University are not on this machine (set LINGULA_DATA)")
    table = pd.read_csv(IU_REPORTS, keep_default_na=False)
    assert len(table) == 3141
    return [text for column in ("findings", "impression") for text in table[column]]


def test_real_reports(iu_texts: list[str]) -> None:
    counts, lengths, split = [], [], Counter()
    for text in iu_texts:
        sentences = split_sentences(text)
        counts.append(len(sentences))
        for word in missing_words(text, sentences):
            split[word] += 1
        for sentence in sentences:
            lengths.append(count_tokens(sentence))
            assert "\n" not in sentence
            assert not re.match(r"\d+[.)](?!\d)", sentence)
            # no full stop stays inside but after an abbreviation or an initial
            assert not re.search(r"(?<!\bDr)(?<!\bvs)(?<!\bNo)(?<!\b[A-Z])\. [A-Z][a-z]+ [a-z]+", sentence), sentence
    # the only words that go are the marks 1 to 9, small numbers more often than large ones
    assert all(MARK.fullmatch(word) for word in split)
    assert split["1"] > split["2"] > split["3"] > 20
    # half of the texts are findings (about 4 sentences), half impressions (about 1.5)
    assert 2.7 < sum(counts) / len(counts) < 3.1
    assert 6 < sum(lengths) / len(lengths) < 9
    assert max(lengths) < 90


def test_real_reports_by_eye(iu_texts: list[str]) -> None:
    """Read by a person: how many sentences the first findings have."""
    assert [len(split_sentences(text)) for text in iu_texts[:3]] == [5, 4, 2]
    assert report_sentences(iu_texts[0])[1:3] == ["there is no pulmonary edema.", "there is no focal consolidation."]
