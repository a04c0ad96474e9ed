"""The encoding of a text file: what Python's own codecs wrote, in the words of reports, must be read back."""

import gzip
import zlib

import pytest

from lingula.data.encodings import UTF8, find_encoding, known_encoding, open_bytes, text_lines
from lingula.registry import UserError

SENTENCES = {
    "german": "Röntgen Thorax: Kein Erguss. Herzgröße normal. Übersicht unauffällig, „kleiner“ Schatten – 5 µm.",
    "french": "Pas d’épanchement. Cœur normal. Opacité à gauche, RÉSULTAT inchangé.",
    "spanish": "Corazón normal. Sin derrame. Señal pequeña. ¿Neumonía?",
    "portuguese": "Coração de dimensões normais. Não há derrame. Opacificação à esquerda.",
    "swedish": "Hjärtat är inte förstorat. Ingen pleuravätska på höger sida.",
    "dutch": "Geen pleuravocht. Cardiomegalie, coëxistente oedeem.",
    "polish": "Serce powiększone. Płyn w lewej jamie opłucnej, bez zagęszczeń.",
    "turkish": "Kalp normal büyüklükte. Plevral efüzyon yok. Akciğerler açık, şüpheli ışık.",
    "russian": "Сердце не увеличено. Выпота нет. Лёгкие без очаговых изменений.",
    "greek": "Η καρδιά είναι φυσιολογική. Χωρίς πλευριτική συλλογή.",
    "chinese": "双肺纹理清晰。心影大小正常。未见胸腔积液。",
    "traditional": "雙肺紋理清晰。心影大小正常。未見胸腔積液。",
    "japanese": "心臓は正常です。胸水はありません。肺野は清明です。",
    "korean": "심장은 정상입니다. 흉수는 없습니다.",
}
WESTERN = ("german", "french", "spanish", "portuguese", "swedish", "dutch")
WRITTEN = [(language, "cp1252") for language in WESTERN]
WRITTEN += [(language, "mac_roman") for language in ("german", "french")]
WRITTEN += [("polish", "cp1250"), ("turkish", "cp1254"), ("russian", "cp1251"), ("russian", "koi8_r")]
WRITTEN += [("greek", "cp1253"), ("chinese", "gb18030"), ("chinese", "gbk"), ("traditional", "big5")]
WRITTEN += [("japanese", "shift_jis"), ("korean", "euc_kr")]
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def table(text, rows=1):
    return "image;report\n" + "".join(f"{n}.png;{text}\n" for n in range(rows))


def check(path, text, encoding):
    path.write_bytes(gzip.compress(text.encode(encoding)) if path.suffix == ".gz" else text.encode(encoding))
    found = find_encoding(path)
    assert "".join(text_lines(path, found.name)) == text
    return found


@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
@pytest.mark.parametrize("rows", [1, 30])
def test_legacy_encodings_are_found(tmp_path, language, encoding, rows):
    found = check(tmp_path / "t.csv", table(SENTENCES[language], rows), encoding)
    assert found.words
    assert all(word in SENTENCES[language] for word in found.words)


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_unicode_is_found_with_and_without_its_mark(tmp_path, language, encoding, name):
    found = check(tmp_path / name, table(SENTENCES[language]), encoding)
    assert (found.name == UTF8) == encoding.startswith("utf-8")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Müller", "cp1252"),
        ("Müller", "cp850"),
        ("Größe; Röntgen", "cp850"),
        ("Jiménez", "cp1252"),
        ("rotated by 5° only", "cp1252"),
        ("the patient’s chest – no effusion", "cp1252"),
        ("30 µm", "latin-1"),
    ],
)
def test_one_word_is_enough(tmp_path, text, encoding):
    check(tmp_path / "t.csv", table(text), encoding)


def test_ascii_is_utf8_and_so_is_an_empty_file(tmp_path):
    assert check(tmp_path / "t.csv", table("no effusion"), "ascii").name == UTF8
    assert check(tmp_path / "t.csv", "", "ascii").name == UTF8


def test_the_whole_file_counts_and_not_its_head(tmp_path):
    text = table("no effusion", 40_000) + "40000.png;Röntgen\n" + table("no effusion", 40_000)
    assert check(tmp_path / "t.csv", text, "cp1252").words == ("Röntgen",)
    # a byte that cp1252 has not, a megabyte after the sample: another encoding, or none, but not a crash later
    data = table("Röntgen", 3000).encode("cp1252") + table("no effusion", 60_000).encode() + b"x\x81y\n"
    (tmp_path / "t.csv").write_bytes(data)
    assert find_encoding(tmp_path / "t.csv").name != "cp1252"


def test_utf8_with_a_line_of_something_else_is_refused_by_line(tmp_path):
    lines = table("Röntgen", 50).encode().splitlines(keepends=True)
    lines[20] = "19.png;Größe\n".encode("cp1252")
    (tmp_path / "t.csv").write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"t\.csv is UTF-8 but for line 21; mend it, or give --encoding"):
        find_encoding(tmp_path / "t.csv")
    lines[30] = "29.png;Größe\n".encode("cp1252")
    (tmp_path / "t.csv").write_bytes(b"".join(lines))
    with pytest.raises(UserError, match="UTF-8 but for 2 lines, the first of them line 21"):
        find_encoding(tmp_path / "t.csv")


@pytest.mark.parametrize("word", ["Größe", "5° caudal", "à gauche", "left – right", "Сердце", "胸"])
@pytest.mark.parametrize(
    ("utf8", "latin", "message"),
    [
        (1, 1, r"t\.csv is partly in UTF-8: line 2 is and line 3 is not; save all of it in one encoding, or give"),
        (1, 2, "partly in UTF-8: line 2 is and line 3 is not"),
        (1, 9, "partly in UTF-8: line 2 is and line 3 is not"),
        (2, 99, r"partly in UTF-8: 2 lines are \(first: line 2\) and line 4 is not"),
    ],
)
def test_lines_of_two_encodings_are_refused(tmp_path, word, utf8, latin, message):
    lines = [f"{word}\n".encode()] * utf8 + ["Röntgen\n".encode("latin-1")] * latin
    (tmp_path / "t.csv").write_bytes(b"image\n" + b"".join(lines))
    with pytest.raises(UserError, match=message):
        find_encoding(tmp_path / "t.csv")


@pytest.mark.parametrize("others", [1, 3])
def test_short_words_of_gbk_that_happen_to_be_utf8_are_no_reason_to_refuse(tmp_path, others):
    rows = ["女"] * others + ["男"] * others + [SENTENCES["chinese"]]  # "女" is a letter of UTF-8, "男" is not
    assert "女".encode("gbk").decode() == "Ů"
    assert check(tmp_path / "t.csv", "image,sex\n" + "".join(f"a.png,{row}\n" for row in rows), "gbk").words


def test_zero_bytes(tmp_path):
    assert check(tmp_path / "t.csv", table("a\0b"), "utf-8").name == UTF8
    (tmp_path / "t.csv").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(UserError, match=r"t\.csv has zero bytes and is not UTF-16"):
        find_encoding(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04\x14\0\0\0")
    with pytest.raises(UserError, match=r"t\.csv is a spreadsheet or an archive, not text; name it as what it is"):
        find_encoding(tmp_path / "t.csv")


def test_lines_keep_their_ends(tmp_path):
    text = 'a\r\n"b\nc\rd"\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16"))
    for name in ("utf-16", "utf-16-le"):  # the second does not take the byte order mark away
        assert list(text_lines(tmp_path / "t.csv", name)) == ["a\r\n", '"b\n', "c\r", 'd"\r\n']


@pytest.mark.parametrize(
    ("encoding", "data", "message"),
    [
        ("utf-8-sig", "a\nb\né\n".encode("cp1252"), r"t\.csv is not in UTF-8: line 3 has 0xe9; save it as UTF-8"),
        ("ascii", "a\né\n".encode(), r"t\.csv is not in ascii: line 2 has 0xc3"),
        ("utf-16-le", b"a\0b", r"t\.csv is not in utf-16-le: .*truncated"),
    ],
)
def test_another_encoding_than_the_file_s_is_refused(tmp_path, encoding, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(text_lines(tmp_path / "t.csv", encoding))


def test_names_of_encodings():
    assert known_encoding("UTF8") == UTF8
    assert known_encoding("latin1") == known_encoding("ISO-8859-1")
    for name in ("utf-9", "hex"):
        with pytest.raises(UserError, match=f"unknown encoding '{name}'; expected one such as utf-8"):
            known_encoding(name)


def test_broken_archives_are_the_caller_s(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(table("x", 999).encode())[:60])
    with pytest.raises((EOFError, zlib.error)):
        find_encoding(tmp_path / "t.csv.gz")
    (tmp_path / "t.csv.gz").write_bytes(b"plain")
    with pytest.raises(OSError, match="gzip"), open_bytes(tmp_path / "t.csv.gz") as file:
        file.read()
