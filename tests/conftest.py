"""Small things that tests share: a batch of tiny films and reports, and encoders that fit it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lingula.batch import Batch, Reports
from lingula.methods import METHODS

IMAGE_SIZE = 32
VOCABULARY = 40

# Options that make a method small enough to test. A method without a line here is tested as its recipes have it.
SMALLER = {
    "barlow-twins": {"projector": (32, 16)},
    "clip": {"dim": 16},
    "cm-cgns": {"dim": 32, "clusters": 4, "decoder_widths": (8, 8, 4, 4, 4)},
    "convirt": {"dim": 16},
    "gloria": {"upsample_to": 48, "chunk": 3},
    "lovt": {"dim": 16, "hidden": 32},
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "mgca": {"dim": 16, "hidden": 32, "prototypes": 8, "upsample_to": 48},
    "moco": {"dim": 4, "queue_size": 65536},
    "moco-v2": {"dim": 4, "hidden": 16, "queue_size": 65536},
    "place": {"dim": 16, "hidden": 16, "queries": 4, "heads": 2},
    "prior": {"dim": 16, "prototypes": 8, "decoder_layers": 1, "decoder_heads": 2, "decoder_widths": (8,)},
    "siglip": {"dim": 16},
    "simclr": {"dim": 16, "hidden": 32},
    "simsiam": {"dim": 32, "hidden": 32, "bottleneck": 8},
    "vicreg": {"expander": (32, 16)},
}
ONLY_ON = {"mae": "small_vit"}  # an encoder for the methods that do not take every one


def make_reports(sentence_counts: Sequence[int], generator: torch.Generator, first_key: int = 100) -> Reports:
    """Random reports: a [CLS], sentences of two to four tokens, a [SEP], and padding up to the longest."""
    ids, places, words, reports, positions = [], [], [], [], []
    for report, count in enumerate(sentence_counts):
        row, place, word = [1], [-1], [-1]
        for position in range(count):
            length = int(torch.randint(2, 5, (1,), generator=generator))
            row += torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
            place += [len(reports)] * length
            word += [word[-1] + 1 + piece // 2 for piece in range(length)]  # words of two pieces, and some of one
            reports.append(report)
            positions.append(position)
        ids.append([*row, 2])
        places.append([*place, -1])
        words.append([*word, -1])
    longest = max(map(len, ids))
    return Reports(
        token_ids=torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
        token_mask=torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in ids]),
        sentence_of_token=torch.tensor([row + [-1] * (longest - len(row)) for row in places]),
        word_of_token=torch.tensor([row + [-1] * (longest - len(row)) for row in words]),
        report_of_sentence=torch.tensor(reports),
        position_of_sentence=torch.tensor(positions),
        sentence_key=first_key + torch.arange(len(reports)),
        max_sentences=max(sentence_counts),
        max_words=max(map(max, words)) + 1,
    )


def make_batch(sentence_counts: Sequence[int] = (2, 1, 3), seed: int = 0, views: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    films = torch.rand(len(sentence_counts), views, 1, IMAGE_SIZE, IMAGE_SIZE, generator=generator) * 2 - 1
    rows = 10 + torch.arange(len(sentence_counts))
    return Batch(films, rows, seed=7, reports=make_reports(sentence_counts, generator))


def take(batch: Batch, order: Sequence[int]) -> Batch:
    """The batch of these pairs, in this order."""
    old = batch.reports
    assert old is not None
    order = list(order)
    sentences, new_place = [], {}
    for report in order:
        for n in (old.report_of_sentence == report).nonzero()[:, 0].tolist():
            new_place[n] = len(sentences)
            sentences.append(n)
    relabel = torch.tensor([new_place.get(n, -1) for n in range(old.sentence_count)] + [-1])  # [-1] stays -1
    reports = Reports(
        token_ids=old.token_ids[order],
        token_mask=old.token_mask[order],
        sentence_of_token=relabel[old.sentence_of_token[order]],
        word_of_token=old.word_of_token[order],
        report_of_sentence=torch.tensor([order.index(int(old.report_of_sentence[n])) for n in sentences]),
        position_of_sentence=old.position_of_sentence[sentences],
        sentence_key=old.sentence_key[sentences],
        max_sentences=int(old.position_of_sentence[sentences].max()) + 1,
        max_words=int(old.word_of_token[order].max()) + 1,
    )
    return Batch(batch.images[order], batch.rows[order], batch.seed, reports)


def pad(batch: Batch, tokens: int = 5, sentences: int = 3) -> Batch:
    """The same pairs with more padding: tokens to the right, and room for more sentences."""
    assert batch.reports is not None
    old = batch.reports
    grown = {
        name: torch.nn.functional.pad(getattr(old, name), (0, tokens), value=value)
        for name, value in (("token_ids", 0), ("token_mask", False), ("sentence_of_token", -1), ("word_of_token", -1))
    }
    grown |= {"max_sentences": old.max_sentences + sentences, "max_words": old.max_words + 2}
    return replace(batch, reports=replace(old, **grown))


def as_double(batch: Batch) -> Batch:
    return replace(batch, images=batch.images.double())


def make_encoders(seed: int = 0, image_encoder: str = "small_resnet") -> dict[str, torch.nn.Module]:
    """The library's own towers, as small as they come: 2 x 2 patches of width 96, tokens of width 16."""
    from transformers import BertConfig

    from lingula.nn.image_encoders import ImageEncoder
    from lingula.nn.text_encoders import TextEncoder

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return {"image_encoder": ImageEncoder(image_encoder, IMAGE_SIZE), "text_encoder": TextEncoder(config)}


def make_method(name: str, options: dict, seed: int = 0, image_encoder: str | None = None) -> torch.nn.Module:
    """A method on such towers; one of films alone has no text encoder."""
    factory = METHODS[name]
    towers = make_encoders(seed, image_encoder or ONLY_ON.get(name, "small_resnet"))
    if not factory.uses_text:
        del towers["text_encoder"]
    return factory(**towers, image_size=IMAGE_SIZE, **options)


def make_tables(columns, label_names=(), boxes=(), masks=()):
    """The tables of a prepared corpus, in memory.

    Args:
        columns: of studies and images, ``{name: values}``; those that are not given say nothing.
        label_names: of the columns ``label:<name>``.
        boxes: ``(row, name, x0, y0, x1, y1)`` of each.
        masks: ``(row, name)`` of each.
    """
    import pyarrow as pa

    from lingula.data.layout import as_array, schemas, split_column
    from lingula.data.mapped import Mapped

    rows = range(len(columns["study_id"]))
    nothing = {"sentences": [[]], "annotated": [[]], "content": [None], "date": [None], "prior": [None]}
    truth = [[None] * len(report) for report in columns.get("sentences", [[]] * len(rows))]
    given = dict.fromkeys(("meanings", "findings", "sentence_boxes"), truth) | {"study": rows} | dict(columns)
    given["split"] = split_column(list(columns["split"]))
    named = {"boxes": ("row", "name", "x0", "y0", "x1", "y1"), "masks": ("row", "name")}
    parts = {"boxes": list(boxes), "masks": list(masks)}
    tables = {}
    for name, schema in schemas(label_names).items():
        if name in parts:
            own = {column: [part[place] for part in parts[name]] for place, column in enumerate(named[name])}
        else:
            blank = {
                field.name: nothing.get(field.name, [""] if field.type == pa.string() else [0]) for field in schema
            }
            own = {field.name: given.get(field.name, blank[field.name] * len(rows)) for field in schema}
        arrays = [as_array(own[field.name], field.type) for field in schema]
        tables[name] = Mapped(schema, [pa.RecordBatch.from_arrays(arrays, schema=schema)])
    return tables


def changed_corpus(corpus, boxes=None, label_names=None, **columns):
    """A corpus of the same images, in memory, of which other things are said.

    Args:
        corpus: prepared.
        boxes: a data frame as ``corpus.boxes()`` gives it.
        label_names: of all labels; ``label:<name>`` stands for the columns of new ones.
        columns: of studies and images.
    """
    from lingula.data.prepared import PreparedCorpus

    names = corpus.label_names if label_names is None else label_names
    every = range(len(corpus))
    own = (table for name, table in corpus._tables.items() if name in ("studies", "images"))
    columns = {field.name: table.lists(field.name, every) for table in own for field in table.schema} | columns
    boxes = corpus.boxes() if boxes is None else boxes
    masks = corpus._tables["masks"].to_pandas().itertuples(index=False)
    said = f"changed: {sorted(columns.items())}"  # so that its tokens are its own
    meta = {**corpus.meta, "label_names": list(names), "index_sha256": said}
    tables = make_tables(columns, names, boxes.itertuples(index=False), masks)
    return PreparedCorpus(corpus.folder, meta, tables, corpus.pixels, corpus._packed_masks)


def unreported(corpus, rows):
    """The corpus without the reports of these rows."""
    sentences = [[] if row in rows else report for row, report in enumerate(corpus.reports)]
    truth = {
        name: [[] if row in rows else values for row, values in enumerate(corpus.lists(name, range(len(corpus))))]
        for name in ("meanings", "findings", "sentence_boxes")
    }
    return changed_corpus(corpus, sentences=sentences, **truth)


def words_of(reports, row, tokenizer):
    """The words of a collated report, their pieces joined."""
    words = {}
    for token, word in zip(reports.token_ids[row].tolist(), reports.word_of_token[row].tolist(), strict=True):
        if word >= 0:
            words.setdefault(word, []).append(tokenizer.convert_ids_to_tokens(token).removeprefix("##"))
    assert list(words) == list(range(len(words)))
    return ["".join(pieces) for pieces in words.values()]


class Watch(TorchDispatchMode):
    """Names of all operators, the largest tensor that any of them made, and which of them make the host wait."""

    waiting = frozenset(
        {
            "aten::_local_scalar_dense",
            "aten::nonzero",
            "aten::masked_select",
            "aten::_unique2",
            "aten::bincount",
            "aten::equal",
            "aten::is_nonzero",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.names, self.largest, self.maker = set(), 0, ""

    @property
    def waits(self) -> set[str]:
        """What was called that makes the host wait for the device."""
        return self.names & self.waiting

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket._qualified_op_name)
        if "index" in str(func) and any(
            isinstance(place, torch.Tensor) and place.dtype == torch.bool
            for place in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else [])
        ):
            self.names.add("aten::nonzero")  # inside the kernel of an index by a mask, where this mode cannot see it
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.numel() > self.largest:
                self.largest, self.maker = tensor.numel(), str(func)
        return out


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tensors this small lose time to more


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """``tiny.batch((2, 1, 3))``, ``tiny.encoders()``, and what can be done to a batch."""
    return SimpleNamespace(
        batch=make_batch,
        encoders=make_encoders,
        method=make_method,
        smaller=SMALLER,
        only_on=ONLY_ON,
        take=take,
        pad=pad,
        double=as_double,
        watch=Watch,
        words_of=words_of,
        tables=make_tables,
        changed=changed_corpus,
        unreported=unreported,
        image_size=IMAGE_SIZE,
        vocabulary=VOCABULARY,
    )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a prepared corpus: 24, 8 and 16 synthetic films of 48 pixels. Read it only."""
    from lingula.corpora.synthetic import Synthetic
    from lingula.data.preparation import prepare

    folder = tmp_path_factory.mktemp("tiny") / "corpus"
    prepare(Synthetic(train=24, val=8, test=16, film_size=48), folder, 48, workers=0, log=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of a few steps in both stages. Read it only."""
    from lingula.commands.pretrain import pretrain

    run = tmp_path_factory.mktemp("tiny") / "run"
    options = {"dim": 32, "decoder_widths": [8, 8]}
    return pretrain(
        tiny_corpus, run, recipe="scratch", image_size=48, batch_size=8, options=options, epochs=[2, 1], quiet=True
    )


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared synthetic corpus: 24 train, 8 val and 24 test films of 72 pixels. Read it only."""
    from lingula.corpora.synthetic import Synthetic
    from lingula.data.preparation import prepare

    folder = tmp_path_factory.mktemp("small") / "corpus"
    prepare(Synthetic(train=24, val=8, test=24, film_size=72), folder, size=72, workers=0, log=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def _small_run(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lingula.commands.pretrain import pretrain

    out = tmp_path_factory.mktemp("small") / "run"
    pretrain(
        small_corpus,
        out,
        recipe="scratch",
        image_size=64,
        resize_to=72,
        batch_size=12,
        epochs=[1.0, 0.0],
        vocabulary=200,
        precision="32",
        accelerator="cpu",
        log_every=1,
        quiet=True,
    )
    return out


@pytest.fixture
def small_run(_small_run: Path, tmp_path: Path) -> Path:
    """A copy of a run of two steps on :func:`small_corpus`, to write into."""
    return Path(shutil.copytree(_small_run, tmp_path / "run"))
