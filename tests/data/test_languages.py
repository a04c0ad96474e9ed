"""How often the guess of a language is right, on sentences that were written for this test."""

from __future__ import annotations

from collections import Counter

import pytest

from lingula.data.languages import NAMES, UNKNOWN, abbreviations, guess_language, is_own_abbreviation
from lingula.data.sentences import split_sentences

SENTENCES = {
    "English": """The cardiomediastinal contours are within normal limits.
        No focal consolidation, pleural effusion or pneumothorax.
        There is a small left pleural effusion with adjacent atelectasis.
        Endotracheal tube tip terminates 4 cm above the carina.
        Interval removal of the right chest tube.
        Stable postoperative changes of the left hemithorax.
        Mild degenerative changes of the thoracic spine.
        Low lung volumes with bibasilar atelectasis.
        Heart is enlarged, unchanged from the prior study.
        Recommend follow-up CT in three months.""",
    "German": """Herz nicht vergrößert, kein Nachweis eines Pleuraergusses.
        Zustand nach Implantation eines Schrittmachers von links.
        Die Lunge ist beidseits frei belüftet.
        Zentraler Venenkatheter mit Projektion der Spitze auf die Vena cava superior.
        Flächige Verschattung im rechten Unterfeld, vereinbar mit einem Infiltrat.
        Kein Pneumothorax.
        Degenerative Veränderungen der Wirbelsäule.
        Zwerchfellkuppen glatt begrenzt, Randwinkel frei.
        Im Vergleich zur Voraufnahme unveränderter Befund.
        Keine pulmonalvenöse Stauung.""",
    "French": """Pas d'épanchement pleural ni de pneumothorax.
        La silhouette cardiaque est de taille normale.
        Opacité alvéolaire de la base droite évoquant un foyer infectieux.
        Cathéter veineux central dont l'extrémité se projette sur la veine cave supérieure.
        Absence de lésion osseuse visible.
        Coupoles diaphragmatiques bien dessinées.
        Les culs-de-sac pleuraux sont libres.
        Surcharge vasculaire avec redistribution vers les sommets.
        Aspect stable par rapport au cliché précédent.
        Cardiomégalie modérée.""",
    "Spanish": """No se observa derrame pleural ni neumotórax.
        Silueta cardíaca de tamaño normal.
        Opacidad en el lóbulo inferior derecho compatible con neumonía.
        Pulmones sin infiltrados ni condensaciones.
        Senos costofrénicos libres.
        Aumento de la trama broncovascular en ambas bases.
        Catéter venoso central con extremo en la vena cava superior.
        Cambios degenerativos en la columna dorsal.
        Sin cambios respecto al estudio previo.
        Elongación aórtica.""",
    "Portuguese": """Não há evidências de derrame pleural.
        Área cardíaca dentro dos limites da normalidade.
        Pulmões expandidos, sem opacidades focais.
        Seios costofrênicos livres.
        Opacidade no lobo inferior direito, sugestiva de pneumonia.
        Aorta alongada e com calcificações parietais.
        Índice cardiotorácico aumentado.
        Cateter venoso central com extremidade na veia cava superior.
        Sem alterações em relação ao exame anterior.
        Espondilose dorsal.""",
    "Italian": """Non si osserva versamento pleurico.
        Ombra cardiaca nei limiti della norma.
        Addensamento parenchimale in sede basale destra.
        Non evidenti lesioni pleuroparenchimali in atto.
        Ili di aspetto vascolare.
        Seni costofrenici liberi.
        Catetere venoso centrale con estremità in vena cava superiore.
        Quadro invariato rispetto al controllo precedente.
        Aorta allungata e calcifica.
        Segni di stasi del piccolo circolo.""",
    "Dutch": """Geen aanwijzingen voor pleuravocht of pneumothorax.
        Het hart is niet vergroot.
        Slank mediastinum, normale longvaattekening.
        Infiltraat in de rechter onderkwab.
        Centrale lijn met de tip in de vena cava superior.
        Beeld onveranderd ten opzichte van het vorige onderzoek.
        Degeneratieve veranderingen van de wervelkolom.
        Beiderzijds scherpe sinus.
        Status na sternotomie.
        Er is sprake van overvulling.""",
    "Chinese": "双肺纹理清晰。 心影大小正常。 未见胸腔积液。 右肺下叶斑片影，考虑炎症。 两侧膈面光整。 "
    "主动脉迂曲增宽。 胸廓对称。 纵隔居中。 CT复查。 未见异常。",
    "Japanese": "心拡大を認めます。 胸水なし。 両側肺野に異常陰影を認めない。",
    "Korean": "심장 크기는 정상입니다. 양측 폐야에 이상 소견 없음.",
    "Hindi": "हृदय का आकार सामान्य है। फेफड़े साफ़ हैं।",
    "Thai": "หัวใจขนาดปกติ ไม่พบน้ำในช่องเยื่อหุ้มปอด",
    UNKNOWN: """Xxxx xxxx.
        12 x 13 mm.
        Normal.
        Pneumothorax.
        Hjärtat är normalstort, ingen pleuravätska.
        Serce niepowiększone.""",
}
ONE_LINE = ("Chinese", "Japanese", "Korean", "Hindi", "Thai")


def samples(language: str) -> list[str]:
    text = SENTENCES[language]
    return text.split(" ") if language == "Chinese" else [text] if language in ONE_LINE else text.split("\n        ")


def test_single_sentences_are_told_apart_or_called_unknown() -> None:
    guesses = {language: Counter(map(guess_language, samples(language))) for language in SENTENCES}
    wrong = {
        (language, guess): count
        for language, found in guesses.items()
        for guess, count in found.items()
        if guess not in (language, UNKNOWN)
    }
    built_in = [language for language in guesses if language in NAMES.values()]
    right = sum(guesses[language][language] for language in built_in)
    assert wrong == {}
    assert (right, sum(guesses[language].total() for language in built_in)) == (59, 80)  # and 21 unknown
    assert all(guesses[language][language] == guesses[language].total() for language in (*ONE_LINE, UNKNOWN))


@pytest.mark.parametrize("language", [language for language in SENTENCES if language != UNKNOWN])
def test_reports_of_several_sentences_are_all_told_right(language: str) -> None:
    sentences = samples(language)
    for start in range(max(1, len(sentences) - 3)):
        assert guess_language(" ".join(sentences[start : start + 4])) == language


def test_abbreviations_are_no_words_of_english() -> None:
    """They hold in texts of every language, so that none may end an English sentence."""
    assert {"z.b", "ca", "aprox"} <= abbreviations("leading")
    assert {"li", "re", "bds"} <= abbreviations("before_opener")
    english = {"a", "an", "at", "in", "no", "on", "so", "to", "up", "left", "right", "clear", "normal", "size", "base"}
    # what English reports end sentences with: abbreviations and short words
    english |= {"nl", "nml", "wnl", "nad", "sig", "pat", "str", "ex", "dir", "es", "mind", "postop", "preop"}
    english |= {
        "abn",
        "ptx",
        "chf",
        "copd",
        "icu",
        "svc",
        "ivc",
        "rul",
        "lul",
        "rll",
        "lll",
        "cxr",
        "ett",
        "ngt",
        "picc",
    }
    english |= {
        "off",
        "on",
        "out",
        "in",
        "is",
        "it",
        "me",
        "or",
        "as",
        "by",
        "if",
        "we",
        "pal",
        "sat",
        "ok",
        "tee",
        "ste",
    }
    assert not english & (abbreviations("leading") | abbreviations("trailing") | abbreviations("before_opener"))
    assert {"nl", "sig", "postop", "pat"} <= abbreviations("own")


@pytest.mark.parametrize("word", sorted(abbreviations("own")))
def test_abbreviations_that_mean_something_else_elsewhere_hold_in_their_own_language_alone(word: str) -> None:
    own = [language for language in NAMES.values() if is_own_abbreviation(word, " ".join(samples(language)))]
    assert own
    assert "English" not in own
    assert not is_own_abbreviation(word, "Xyz.")
    ends = [f"The heart is not {word}.", "Lungs are clear."]
    assert len(word) == 1 or split_sentences(" ".join(ends)) == ends  # a single letter may be an initial
