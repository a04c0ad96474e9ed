"""A new corpus: `lingula prepare add_a_corpus:PatientFolders --root scans --out data/scans`, in this folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lingula.data.reader import fingerprint_of
from lingula.data.sentences import report_sentences
from lingula.data.study import LeftOut, Sentence, Study


@dataclass
class PatientFolders:
    """A folder for each patient, with images and reports of the same name: `p1/s1.png` and `p1/s1.txt`.

    Args:
        root: folder of the patients' folders.
    """

    root: Path

    name: ClassVar[str] = "patient-folders"
    licence: ClassVar[str] = "your own"

    def fingerprint(self) -> str:
        return fingerprint_of(self, Path(self.root).glob("*/*.txt"))  # another text makes another corpus

    def studies(self) -> Iterator[Study | LeftOut]:
        for image in sorted(Path(self.root).glob("*/*.png")):
            report, where = image.with_suffix(".txt"), str(image.relative_to(self.root))
            if not report.is_file():
                yield LeftOut(where, "no report", bad=False)  # counted, and listed in left_out.csv
                continue
            sentences = tuple(Sentence(text) for text in report_sentences(report.read_text(encoding="utf-8")))
            yield Study(where.removesuffix(".png"), image.parent.name, image, sentences=sentences, row=where)
