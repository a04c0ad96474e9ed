"""Which encoding a text file is in, found from the whole of it. Floor 2."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lingula.registry import UserError

UTF8 = "utf-8-sig"  # with or without a byte order mark
MARKS = {  # UTF-32's first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What programs outside the web write, the likelier first, which is how ties are settled. gb18030, cp932 and cp949
# include GBK, Shift-JIS and EUC-KR.
LEGACY = (
    *("cp1252", "cp850", "mac_roman", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("gb18030", "big5", "cp932", "euc_jp", "cp949"),
)
CHUNK = 1 << 20  # bytes read at a time
SAMPLE = 1 << 16  # bytes of lines beyond ASCII that charset-normalizer looks at
# What a line of UTF-8 has and a line of another encoding hardly ever decodes to: a letter beyond ASCII within a word, a
# character of three bytes. "\u016e" alone does not count: that is how GBK writes "female".
PLAIN_UTF8 = re.compile(
    r"[A-Za-z][\u00a0-\u07ff]|[\u00a0-\u07ff][A-Za-z]|\d°|[à-þ]|[\u0800-\U0010ffff]|[\u00a0-\u07ff]{4}"
)
WORD = re.compile(r"[^\W\d_]*[^\W\d_\x00-\x7f][^\W\d_]*")


@dataclass(frozen=True)
class Encoding:
    """How a text file is written.

    Attributes:
        name: one that :func:`open` takes.
        words: a few of its words beyond ASCII, so that a reader can judge a guess; empty for UTF-8.
    """

    name: str
    words: tuple[str, ...] = ()


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends with ``.gz``."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def text_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file with their ends as they stand, without a byte order mark; ``.gz`` is unpacked.

    Raises:
        UserError: naming the first line that is not in this encoding.
        OSError, EOFError, zlib.error: if the file cannot be read.
    """
    with io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="") as file:
        try:
            yield from (line.removeprefix("\ufeff") if not place else line for place, line in enumerate(file))
        except UnicodeError as err:
            where = _first_bad(path, encoding) or str(err)
            name = "UTF-8" if encoding == UTF8 else encoding
            raise UserError(f"{path.name} is not in {name}: {where}; save it as UTF-8") from err


def known_encoding(name: str) -> str:
    """The name of an encoding that the user gave, as :func:`open` takes it.

    Raises:
        UserError: for one that Python does not know.
    """
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name)  # what is no encoding of text, such as hex, refuses
    except LookupError as err:
        raise UserError(f"unknown encoding '{name}'; expected one such as utf-8, utf-16, cp1252 or gb18030") from err
    return UTF8 if codec.name == "utf-8" else codec.name


def find_encoding(path: Path) -> Encoding:
    """The encoding of a text file: a byte order mark, else UTF-16 without one, else strict UTF-8, else a legacy one.

    A legacy encoding is one in which the *whole* file decodes; among those, the one whose text charset-normalizer finds
    the least messy, cp1252 where several are as good. The languages of central Europe can be as good in cp1252 as in
    cp1250, hence the words that are returned.

    Memory stays small however large the file is, which is read twice where it is not UTF-8.

    Raises:
        UserError: for bytes that are no text, text that fits no encoding, and lines of UTF-8 among lines of another.
        OSError, EOFError, zlib.error: if the file cannot be read.
    """
    with open_bytes(path) as file:
        head = file.read(SAMPLE)
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return Encoding(name, () if name == UTF8 else _words(head.decode(name, "ignore")))
    if head.startswith(b"PK\x03\x04"):
        raise UserError(f"{path.name} is a spreadsheet or an archive, not text; name it as what it is, such as .xlsx")
    if b"\0" in head:
        return _without_mark(path, head)
    if _decodes(path, UTF8):
        return Encoding(UTF8)
    return _legacy(path)


def _without_mark(path: Path, head: bytes) -> Encoding:
    """UTF-16 has a zero byte in every ASCII character, and a table has its commas and line ends in ASCII."""
    if head.count(0) < len(head) / 10 and _decodes(path, UTF8):
        return Encoding(UTF8)  # with zeros that somebody wrote
    texts = {name: head[: len(head) // 2 * 2].decode(name, "replace") for name in ("utf-16-le", "utf-16-be")}
    shares = {name: sum(" " <= character < "\x7f" for character in text) / len(text) for name, text in texts.items()}
    name = max(shares, key=lambda name: shares[name])
    if shares[name] < 0.02 or not _decodes(path, name):
        raise UserError(f"{path.name} has zero bytes and is not UTF-16: no table of text")
    return Encoding(name, _words(texts[name]))


def _legacy(path: Path) -> Encoding:
    from charset_normalizer import from_bytes

    sample = _sample(path)
    found = from_bytes(sample, cp_isolation=list(LEGACY), threshold=0.6)
    mess = {name: match.chaos for match in found for name in (match.encoding, *match.could_be_from_charset)}
    scores = {name: mess[name] + _odd(sample.decode(name, "replace")) for name in LEGACY if name in mess}
    while scores:
        name = min(scores, key=lambda name: scores[name])  # the likeliest of equals
        if _decodes(path, name):
            return Encoding(name, _words(sample.decode(name, "ignore")))
        del scores[name]
    raise UserError(f"cannot tell the encoding of {path.name}; give --encoding, or save it as UTF-8")


def _sample(path: Path) -> bytes:
    """The first lines beyond ASCII.

    Raises:
        UserError: where several, a tenth or most of those of the file are UTF-8: another encoding would garble them.
    """
    sample: list[bytes] = []
    size = valid = broken = plain = number = 0
    utf8 = odd = 0  # the first line that is plainly UTF-8, and the first that is something else
    with open_bytes(path) as file:
        while line := file.readline(CHUNK):
            number += 1
            if line.isascii():
                continue
            try:
                text = line.decode()
                valid += 1
                if PLAIN_UTF8.search(text):
                    plain += 1
                    utf8 = utf8 or number
            except UnicodeDecodeError:
                broken += 1
                odd = odd or number
            if size + len(line) <= SAMPLE or not sample:
                sample.append(line[:SAMPLE])
                size += len(line)
    if valid > broken:
        lines = f"line {odd}" if broken == 1 else f"{broken:,} lines, the first of them line {odd}"
        raise UserError(f"{path.name} is UTF-8 but for {lines}; mend it, or give --encoding")
    if plain > 1 or 10 * plain >= valid + broken:
        lines = f"line {utf8} is" if plain == 1 else f"{plain:,} lines are (first: line {utf8})"
        raise UserError(
            f"{path.name} is partly in UTF-8: {lines} and line {odd} is not; save all of it in one encoding, or give "
            "--encoding"
        )
    return b"".join(sample)


def _odd(text: str) -> float:
    """Share of the characters beyond ASCII that nobody writes inside a Latin word: "M\u0178ller", "R\u201dntgen".

    charset-normalizer takes these for clean text; they are how DOS and old Macs look when they are read as cp1252.
    """
    odd = beyond = 0
    for before, character, after in zip(" " + text[:-1], text, text[1:] + " ", strict=True):
        if character > "\x7f":
            beyond += 1
            kind = unicodedata.category(character)
            if _latin(before) and _latin(after) and character not in "\u2019\u00b4\u00b7\u00ad\u2013":
                odd += kind not in ("Ll", "Lo", "Mn") and not (kind == "Lu" and not after.islower())
    return odd / max(beyond, 1)


def _latin(character: str) -> bool:
    return character.isalpha() and character < "\u0250"


def _words(text: str, count: int = 3) -> tuple[str, ...]:
    """The first different words beyond ASCII, or single characters where no word has one."""
    found = dict.fromkeys(WORD.findall(text)) or dict.fromkeys(re.findall(r"[^\x00-\x7f\s]", text))
    return tuple(word[:20] for word in list(found)[:count])


def _decodes(path: Path, encoding: str) -> bool:
    decoder: Any = codecs.getincrementaldecoder(encoding)()
    try:
        with open_bytes(path) as file:
            while chunk := file.read(CHUNK):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _first_bad(path: Path, encoding: str) -> str:
    """``line 7 has the byte 0xe9``; empty where lines cannot be told apart before they are decoded."""
    with open_bytes(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(CHUNK), b""), start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as err:
                return "" if encoding.startswith(("utf-16", "utf-32")) else f"line {number} has {line[err.start]:#04x}"
    return ""
