"""A run goes on from its own run.json; what may not change is refused by name, what may is said and written down."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lingula.cli import main
from lingula.commands.evaluate import evaluate
from lingula.commands.pretrain import pretrain
from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import write_shards
from lingula.methods import METHODS
from lingula.records import plain
from lingula.registry import UserError
from lingula.runs.resume import differences, plan_of
from lingula.tasks.retrieval import Retrieval
from lingula.training.checkpoint import checkpoint_folder
from lingula.training.log import Log

SMALL = {
    "method": "clip",
    "recipe": "scratch",
    "image_size": 32,
    "batch_size": 8,
    "options": {"dim": 16},
    "epochs": [2],
    "learning_rate": 3e-4,
    "seed": 7,
    "vocabulary": 150,
    "log_every": 1,
    "checkpoint_every": 1,
    "accelerator": "cpu",
    "quiet": True,
}
STEADY = {  # a recipe whose rate is constant from its first step
    "method": "gloria",
    "recipe": "paper",
    "image_encoder": "small_resnet",
    "text_encoder": "small_bert",
    "pretrained": False,
    "options": {"upsample_to": 48, "chunk": 3},
}


def weights_of(run):
    return load_file(checkpoint_folder(run) / "weights.safetensors")


def same_weights(one, other):
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def made_of(run):
    return json.loads((run / "run.json").read_text())


def rates_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory):
    """A run of six steps. Read it only."""
    return pretrain(tiny_corpus, tmp_path_factory.mktemp("resume") / "run", **SMALL)


@pytest.fixture
def done(finished, tmp_path):
    """A copy, to go on with."""
    return shutil.copytree(finished, tmp_path / "done")


@pytest.fixture
def broken(tiny_corpus, tmp_path, monkeypatch):
    """The same run, interrupted in its fourth step; its corpus was named from another folder."""

    def interrupt(self, step):
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "step", interrupt)
        patch.chdir(tiny_corpus.parent)
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny_corpus.name, tmp_path / "broken", **SMALL)
    return tmp_path / "broken"


def test_published_weights_are_not_asked_for_again(tiny_corpus, tmp_path, monkeypatch):
    """The checkpoint holds all weights: the files that the run began from may be gone, and the network with them."""
    from transformers import BertConfig, BertModel

    from lingula.data.tokens import train_tokenizer
    from lingula.nn.image_encoders import ImageEncoder

    texts = PreparedCorpus.open(tiny_corpus).training_texts()
    tokenizer = train_tokenizer(texts, tmp_path / "bert", 150)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    torch.save(ImageEncoder("resnet10t", 32).backbone.state_dict(), tmp_path / "image.pth")
    encoders = {"image_encoder": "resnet10t", "text_encoder": str(tmp_path / "bert"), "pretrained": True}
    started = {**SMALL, **encoders, "image_weights": tmp_path / "image.pth", "epochs": [1]}
    pretrain(tiny_corpus, tmp_path / "whole", **started)

    def interrupt(self, step):
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny_corpus, tmp_path / "broken", **started)
    shutil.rmtree(tmp_path / "bert")
    (tmp_path / "image.pth").unlink()
    pretrain(out=tmp_path / "broken", resume=True, accelerator="cpu", quiet=True)
    assert same_weights(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize("old", [False, True], ids=["new", "of version 0.1"])
def test_everything_comes_from_the_run(finished, broken, old):
    arguments = ["--accelerator", "cpu", "--quiet"]
    if old:  # what this version has added to run.json
        made = {name: value for name, value in made_of(broken).items() if name not in ("launch", "vocabulary")}
        made["corpus"] = {name: made["corpus"][name] for name in ("name", "fingerprint", "folder")}
        del made["plan"]["sentences"]  # and what an older one did not have: the default
        (broken / "run.json").write_text(json.dumps(made))
        arguments += ["--log_every", "1"]
    main(["pretrain", "--resume", "--out", str(broken), *arguments])
    assert same_weights(broken, finished)
    assert rates_of(broken) == rates_of(finished)


def test_where_a_resume_goes_on_is_said(broken, tiny_corpus, tmp_path, capsys):
    pretrain(out=broken, resume=True, accelerator="cpu")
    assert f"{broken}: going on from step 3\n" in capsys.readouterr().err
    (broken / "latest").unlink()
    pretrain(out=broken, resume=True, accelerator="cpu", quiet=True)
    assert f"note: {broken} was stopped before its first checkpoint, and begins again" in capsys.readouterr().err
    assert "continued" not in made_of(broken)
    assert ("clip", None) in evaluate(Retrieval(), broken, seeds=[0], bootstrap=10)


def test_a_run_that_never_got_to_a_checkpoint_begins_again_as_it_was_asked_for(finished, broken):
    (broken / "latest").unlink()
    pretrain(out=broken, resume=True, quiet=True)
    assert same_weights(broken, finished)
    assert made_of(broken)["vocabulary"] == 150


def test_what_is_computed_and_logged_otherwise_is_said_and_written_down(finished, broken, capsys, tiny_corpus):
    again = {**SMALL, "log_every": 5, "checkpoint_every": 100, "accelerator": "auto"}
    pretrain(tiny_corpus, broken, resume=True, **again)
    said = capsys.readouterr().out
    changed = {
        name: {"from": SMALL[name], "to": again[name]} for name in ("accelerator", "log_every", "checkpoint_every")
    }
    for name, values in changed.items():
        assert f"{name}: {values['from']} -> {values['to']}" in said
    (continued,) = made_of(broken)["continued"]
    assert (continued["step"], continued["changed"]) == (3, changed)
    assert made_of(broken)["launch"]["log_every"] == 5
    assert same_weights(broken, finished)
    assert sorted(rates_of(broken)) == [1, 2, 3, 5, 6]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "cm-cgns"}, "its method is clip, not cm-cgns"),
        ({"recipe": "paper"}, "its recipe is scratch, not paper"),
        ({"seed": 42}, "its seed is 7, not 42"),  # its default: asked for all the same
        ({"batch_size": 4}, "its batch_size is 8, not 4"),
        ({"image_size": 48}, "its image_size is 32, not 48"),
        ({"learning_rate": 1e-3}, "its learning_rate is 0.0003, not 0.001"),
        ({"options": {"dim": 8}}, "its options.dim is 16, not 8"),
        ({"weights": {"image_to_text": 0.1}}, "its weights.image_to_text of stage 1 is 0.5, not 0.1"),
        ({"accumulate": 2}, "its accumulate is 1, not 2"),
        ({"vocabulary": 99}, "its vocabulary is 150, not 99"),
        ({"devices": 2}, "its processes is 1, not 2"),
        ({"precision": "bf16-mixed"}, "its precision is 32-true, not bf16-mixed"),
        ({"text_encoder": "elsewhere"}, "its text_encoder is small_bert, not elsewhere"),
        ({"epochs": [1]}, "its epochs of stage 1 is 2, not 1; a run can become longer only"),
        ({"epochs": [2, 1]}, "the recipe has 1 stages, so --epochs takes 1 numbers"),
        ({"log_every": 0}, "log_every must be 1 or more, got 0"),
    ],
)
def test_what_may_not_change_is_refused_by_name(done, given, message):
    before = made_of(done)
    with pytest.raises(UserError) as refused:
        pretrain(out=done, resume=True, quiet=True, **given)
    assert message in str(refused.value)
    assert made_of(done) == before


def test_a_finished_run_says_so_and_how_to_lengthen_it(done, capsys):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    pretrain(out=done, resume=True, quiet=True)
    assert "already trained 6 steps; give --epochs to train it longer, as in --epochs 4" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in done.rglob("*") if path.is_file()} == before


def test_a_longer_run_follows_the_longer_schedule_from_where_it_stands(done, tiny_corpus, tmp_path, capsys):
    long = pretrain(tiny_corpus, tmp_path / "long", **{**SMALL, "epochs": [4]})
    short = rates_of(done)
    capsys.readouterr()
    pretrain(out=done, resume=True, epochs=[4], quiet=True)
    said = capsys.readouterr().out
    assert "epochs of stage 1: 2 -> 4" in said
    expected = rates_of(long)
    assert (
        f"from step 7 of stage 1, the learning rate is that of the schedule (cosine) of 12 steps instead of 6: "
        f"{expected[7]:.1e} there, after {short[6]:.1e}"
    ) in said
    assert rates_of(done) == {step: short[step] if step <= 6 else rate for step, rate in expected.items()}
    assert not same_weights(done, long)
    made = made_of(done)
    assert made["plan"]["stages"][0]["epochs"] == 4
    assert made["continued"][0]["changed"] == {"epochs of stage 1": {"from": 2, "to": 4}}
    assert made["continued"][0]["step"] == 6
    pretrain(out=done, resume=True, quiet=True)
    assert "already trained 12 steps" in capsys.readouterr().out
    pretrain(out=done, resume=True, epochs=[4.4], quiet=True)
    assert [entry["step"] for entry in made_of(done)["continued"]] == [6, 12]


def test_at_a_constant_rate_a_longer_run_has_the_bits_of_one_that_was_never_shorter(tiny_corpus, tmp_path):
    settings = {**SMALL, **STEADY}
    long = pretrain(tiny_corpus, tmp_path / "long", **{**settings, "epochs": [2]})
    grown = pretrain(tiny_corpus, tmp_path / "grown", **{**settings, "epochs": [1]})
    pretrain(out=grown, resume=True, epochs=[2], quiet=True)
    assert same_weights(grown, long)


def test_of_several_stages_the_one_reached_and_later_ones_can_grow(tiny_corpus, tmp_path):
    """Stage 2 began nowhere, so a run that grows by it is one that had it from the start."""
    settings = {**SMALL, "method": "cm-cgns", "options": {"dim": 32, "decoder_widths": [8, 8]}}
    both = pretrain(tiny_corpus, tmp_path / "both", **{**settings, "epochs": [1, 1]})
    grown = pretrain(tiny_corpus, tmp_path / "grown", **{**settings, "epochs": [1, 0]})
    pretrain(out=grown, resume=True, epochs=[1, 1], quiet=True)
    assert same_weights(grown, both)
    with pytest.raises(
        UserError, match=r"stage 1 is over; stage 2 started from its weights and has done 3 steps\. Len"
    ):
        pretrain(out=grown, resume=True, epochs=[2, 1], quiet=True)


def test_a_corpus_that_moved_is_named_anew(done, tiny_corpus, tmp_path, capsys):
    made = made_of(done)
    made["corpus"]["folder"] = str(tmp_path / "away")
    (done / "run.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"if the corpus of .* has moved, name its folder with --corpus"):
        pretrain(out=done, resume=True)
    pretrain(tiny_corpus, done, resume=True)
    assert f"corpus: {tmp_path / 'away'} -> {tiny_corpus}" in capsys.readouterr().out
    assert made_of(done)["corpus"]["folder"] == str(tiny_corpus)
    evaluate(Retrieval(), done, seeds=[0], bootstrap=10)


def test_another_corpus_is_refused(done, tiny_corpus, small_corpus, tmp_path):
    with pytest.raises(UserError, match="it was trained on another preparation of synthetic"):
        pretrain(small_corpus, done, resume=True)
    write_shards(PreparedCorpus.open(tiny_corpus), tmp_path / "shards", log=lambda line: None)
    with pytest.raises(UserError, match="it was trained on a prepared corpus, not on shards"):
        pretrain(tmp_path / "shards", done, resume=True)
    made = made_of(done)
    made["corpus"]["studies"] = 23
    (done / "run.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match="it was trained on 23 studies, and its corpus now has 24"):
        pretrain(out=done, resume=True)


def test_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"^missing: --out, the folder of the run$"):
        pretrain()
    with pytest.raises(UserError, match=r"^missing: --corpus, the folder of a prepared corpus$"):
        pretrain(out=tmp_path)
    with pytest.raises(UserError, match=r"^missing: --corpus.*holds no run to resume, which would know it$"):
        pretrain(out=tmp_path, resume=True)


@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_comes_back_from_a_run_json(method, tmp_path):
    for recipe in METHODS[method].recipes.values():
        written = json.loads(json.dumps(plain(dataclasses.asdict(recipe))))
        again = plan_of(written, tmp_path)
        assert dataclasses.replace(again, options=recipe.options) == recipe
        assert plain(again.options) == plain(recipe.options)
    with pytest.raises(UserError, match=r"run\.json has a setting that this version .* not have: .*'colour'"):
        plan_of({**written, "colour": 1}, tmp_path)


def test_the_settings_that_differ():
    old = {"seed": 1, "options": {"mu": 3.0}, "plan": {"clip": None, "stages": [{"weights": {"image": 1.0}}]}}
    new = {"seed": 1, "options": {"dim": 8}, "plan": {"clip": 1.0, "stages": [{"weights": {"image": 0.0}}]}}
    assert list(differences(old, old)) == []
    assert list(differences(old, new)) == [
        ("options.mu", 3.0, None),
        ("options.dim", None, 8),
        ("clip", None, 1.0),
        ("weights.image of stage 1", 1.0, 0.0),
    ]
