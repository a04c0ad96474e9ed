"""Sentences of a text in any language, and how many tokens it has. Floor 2.

A token here is a run of word characters, ``\\w+``, or one character of a script without spaces; a report of fewer than
three tokens says nothing: the rules of the field's preparations of MIMIC-CXR. Nothing is ever added to a text, and no
word is lost but enumeration marks.
"""

from __future__ import annotations

import re

from lingula.data.languages import abbreviations, is_own_abbreviation

MIN_TOKENS = 3  # fewer is no report

# Never the end of a sentence: something always follows.
_LEADING = re.compile(r"drs?|mr|mrs|ms|prof|st|vs|e\.?g|i\.?e|cf|viz|approx|figs?")
# Followed by a small letter or a figure, not the end of a sentence; followed by a capital, its end.
_TRAILING = re.compile(
    r"[cm]?m|in|ft|ml|cc|[mk]g|h|hrs?|mins?|secs?|yrs?|wks?|mos?|[ap]m|(?:[a-z]\.)+[a-z]|etc|ca|incl|esp|resp|ext|int|max|"
    r"temp|[hdrt]x|pts?|lat|ant|post|bilat|rt|lt|sup|inf|neg|pos|med|wt|ht|dept|ref|vol|assoc|[js]r|segs?|cat|"
    r"jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
# What a number or a single letter after it belongs to: "rib 2.", "hepatitis B."
_COUNTED = re.compile(
    r"ribs?|grade|stage|type|levels?|numbers?|nos?|segment|lead|images?|series|views?|vertebra|zone|class|group|hepatitis|"
    r"segs?|cat|category|jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|vitamin|influenza|to|and|or|of|by|than|at|x|approximately|about|measur(?:es|ing)"
)
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese and Japanese: no spaces between words
_THAI = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer: none either, and letters are many
_INDIC = "\u0900-\u0dff"  # vowel signs are no word characters
_ALWAYS = "。！？；।॥؟۔።။។"  # stops that are nothing else
_STOPS = (".", "?", "!", "．", *_ALWAYS)
_OPENING = "\"'([{“‘«¿¡（「『【《"
_CLOSING = "\"')]}”’»）」』】》"
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
_BULLETS = "-*•–—·▪●○■‣\uf0b7\uf0a7" + _CIRCLED
_TOKEN = re.compile(r"\[\*\*.*?\*\*\]\S*|\S+", re.DOTALL)
_MARK = re.compile(r"[(（]?(\d{1,2})[.)）、．],?")
_GLUED_MARK = re.compile(
    rf"(?:(?<!\S)|(?<=[;；。])|(?<=[^\d．]．))([(（]?\d{{1,2}}[.)）、．])(?=[A-Za-z]{{2}}|[{_HAN}])"
)
_GLUED_STOP = re.compile(r"(?<=[a-zß-öø-ÿœ]{2}\.)(?=[A-ZÀ-ÖØ-ÞŒ][a-zß-öø-ÿœ])")
_GLUED_HAN = re.compile(  # a stop that needs no space after it
    rf"(?<=[{_ALWAYS}])(?=[^\s{_ALWAYS}{re.escape(_CLOSING)}])|(?<=[{_ALWAYS}][{re.escape(_CLOSING)}])(?=\S)"
    rf"|(?<=[{_HAN}\d)）][.．!?])(?=[{_HAN}])"
)
_GLUED_CIRCLE = re.compile(rf"[ \t]*([{_CIRCLED}])[ \t]*")
_INITIAL = re.compile(r"[(\"']?[A-Z]\.,?")
_HIDDEN = re.compile(r"[Xx]{3,}|_+|\[\*\*")  # what de-identification leaves
_DAY = re.compile(r"\d{1,2}\.\d{1,2}\.")  # of a month, as Germans write it
_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.")
_ORDINAL = re.compile(r"\d{1,2}|[IVX]{1,4}")
_HAN_LETTER = re.compile(f"[{_HAN}]")
_THAI_LETTER = re.compile(f"[{_THAI}]")
_COUNTABLE = re.compile(rf"[{_HAN}]|[{_THAI}]+|(?:(?![{_HAN}{_THAI}])[\w{_INDIC}])+")
_PIECE = re.compile(rf"[{_HAN}]|(?:(?![{_HAN}])[^\W_])+|[^\w\s]|_")
_THAI_WORD = 4  # letters and signs of a word, roughly


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line, without bullets and enumeration marks.

    Line breaks inside a sentence become spaces (nothing, in Chinese and Japanese); an empty line, a bullet, or the next
    number of an enumeration ends one. Thai, Lao, Burmese and Khmer, which have no stops, have a sentence a line.

    Example:
        >>> split_sentences("1. Nodule of approx. 1.5 cm, seen by Dr. XXXX. 2. No\\neffusion")
        ['Nodule of approx. 1.5 cm, seen by Dr. XXXX.', 'No effusion']
        >>> split_sentences("双肺纹理清晰。心影不大。")
        ['双肺纹理清晰。', '心影不大。']
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = _GLUED_HAN.sub(" ", _GLUED_MARK.sub(r" \1 ", text))
        text = _GLUED_CIRCLE.sub(r"\n\1 ", text)
    text = _GLUED_STOP.sub(" ", _GLUED_MARK.sub(r" \1 ", text))
    tokens = list(_TOKEN.finditer(text))
    words = [" ".join(token.group().split()) for token in tokens] + [""]
    sentences: list[str] = []
    current: list[str] = []
    marks = map(_MARK.fullmatch, words) if "2" in text or "２" in text else ()
    listed = any(mark and int(mark[1]) == 2 for mark in marks)
    expected = 1  # the next number of an enumeration
    end = 0

    def close() -> None:
        sentence = " ".join(current)
        if re.search(r"\w", sentence):
            sentences.append(sentence)
        current.clear()

    for position, token in enumerate(tokens):
        word, following = words[position], words[position + 1]
        gap = text[end : token.start()]
        end = token.end()
        if gap != " " and (gap.count("\n") > 1 or ("\n" in gap and _between(_THAI_LETTER, current, word))):
            close()
        if word[0] in _BULLETS and word.strip(_BULLETS) == "" and ("\n" in gap or not current):
            close()
            continue
        mark = (word[0] in "(（" or word[0].isdigit()) and _MARK.fullmatch(word)
        if mark and (not current or _goes_on(int(mark[1]), expected, "\n" in gap, listed, current, following)):
            close()
            expected = int(mark[1]) + 1
            continue
        if "\n" in gap and _between(_HAN_LETTER, current, word):
            current[-1] += word
        else:
            current.append(word)
        if word.rstrip(_CLOSING)[-1:] in _STOPS and _ends(current, following, text):
            close()
    close()
    return sentences


def _between(letter: re.Pattern[str], current: list[str], word: str) -> bool:
    """Whether the letters on both sides of a gap are of this kind."""
    return bool(current) and letter.match(current[-1][-1]) is not None and letter.match(word) is not None


def _goes_on(number: int, expected: int, new_line: bool, listed: bool, current: list[str], following: str) -> bool:
    """Whether a number inside an unfinished sentence is the next mark of an enumeration, or the first of another.

    ``listed``: the text has a mark of the number 2, so that a 1 on the same line may begin an enumeration.
    """
    if number not in (1, expected) or not following:
        return False
    before = current[-1].strip(_OPENING + _CLOSING + ".,:;").lower()
    if _COUNTED.fullmatch(before) or before in abbreviations("before_ordinal"):
        return False
    begins = following[0].isupper() or _HAN_LETTER.match(following) is not None
    return new_line or current[-1].endswith((":", "：")) or (begins and (number > 1 or listed))


def _ends(current: list[str], following: str, text: str) -> bool:
    """Whether the last word of ``current``, which has a stop, ends a sentence; ``following`` is empty at the end.

    ``text``: all of it, whose language decides over some abbreviations.
    """
    word = current[-1].rstrip(_CLOSING)
    if not following or not word:
        return False
    first = following.lstrip(_OPENING + _BULLETS)[:1]
    if word[-1] in _ALWAYS:
        return True
    if word[-1] in "?!" or word.endswith("..."):
        return len(word) > 1 and not first.islower()
    stem = word.rstrip(".．").lstrip(_OPENING)
    last = re.split(r"[-/,]", stem)[-1].lower()
    before = current[-2].lstrip(_OPENING).lower() if len(current) > 1 else ""
    if _LEADING.fullmatch(last) or {before + last, f"{before} {last}"} & abbreviations("leading"):  # "z. B."
        return False
    if last in abbreviations("leading") and not _TRAILING.fullmatch(last) and not before.isdigit():  # "a 14 Fr. tube"
        return False
    if is_own_abbreviation(last, text) or (last in abbreviations("own") and before[:-1] in abbreviations("leading")):
        return False
    if last == "v" and _DATE.match(following):  # "Voraufnahme v. 3.4.2020"
        return False
    if _ORDINAL.fullmatch(stem) and following.strip(_CLOSING + ".,;:").lower() in abbreviations("after_ordinal"):
        return False
    if last in abbreviations("before_opener"):
        return first.isupper() and following.strip(_OPENING + _CLOSING + ".,;:").lower() in abbreviations("openers")
    if stem.isdigit() and len(stem) < 3 and before in abbreviations("before_ordinal"):
        return False
    if _DAY.fullmatch(word) and not first.isupper():
        return False
    if last in ("no", "nos") and first.isdigit():
        answers = len(current) == 1 or current[-2][-1] in "?:;,"
        return answers and _MARK.fullmatch(following) is not None
    if len(stem) == 1 and stem.isalpha():
        return _ends_at_letter(current, following)
    if _TRAILING.fullmatch(last) or last in abbreviations("trailing"):
        return (first.isupper() and not _HIDDEN.match(following)) or (
            _MARK.fullmatch(following) is not None and not _COUNTED.fullmatch(last)  # "seg. 6."
        )
    return True


def _ends_at_letter(current: list[str], following: str) -> bool:
    """The same after a single letter and a full stop: an initial, or the end of "hepatitis B."."""
    if following[:1].islower() or len(current) == 1 or _INITIAL.fullmatch(following):
        return False
    before = current[-2]
    if _LEADING.fullmatch(before.rstrip(".").lower()) or _INITIAL.fullmatch(before):
        return False
    named = len(current) > 2 and before.istitle() and following.strip(".,;:").istitle()
    return not named or _COUNTED.fullmatch(before.lower()) is not None


def count_tokens(text: str) -> int:
    """Runs of word characters in a text; of Chinese and Japanese each character, of Thai and its like every fourth.

    Example:
        >>> count_tokens("No acute disease."), count_tokens("双肺未见异常。")
        (3, 6)
    """
    if text.isascii():
        return len(re.findall(r"\w+", text))
    runs = _COUNTABLE.findall(text)
    return sum(-(-len(run) // _THAI_WORD) if _THAI_LETTER.match(run) else 1 for run in runs)


def least_tokens(text: str) -> int:
    """How many tokens a text has at least, whatever the vocabulary: its words, signs and Chinese characters.

    Example:
        >>> least_tokens("No acute disease.")
        4
    """
    return len(_PIECE.findall(text))


def report_sentences(text: str) -> list[str]:
    """The sentences of a text in lower case, without those of a single word.

    Example:
        >>> report_sentences("Normal. Heart size is normal.")
        ['heart size is normal.']
    """
    return [sentence.lower() for sentence in split_sentences(text) if count_tokens(sentence) > 1]
