"""Training: it learns, it stops and goes on with the same bits, it refuses in words."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lingula.commands.evaluate import evaluate
from lingula.commands.pretrain import pretrain
from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import write_shards
from lingula.methods.cm_cgns import SCRATCH
from lingula.nn.clusters import OnlineCentres
from lingula.registry import UserError
from lingula.runs.parts import check_batch
from lingula.runs.recipes import SCRATCH_STEPS, few_steps, recipe_of, resolve
from lingula.tasks.retrieval import Retrieval
from lingula.training.checkpoint import checkpoint_folder
from lingula.training.log import Log, keep_until
from lingula.training.loop import fit

SMALL = {"recipe": "scratch", "image_size": 32, "batch_size": 8, "options": {"dim": 32, "decoder_widths": [8, 8]}}


def weights_of(run):
    from safetensors.torch import load_file

    return load_file(checkpoint_folder(run) / "weights.safetensors")


def test_an_unbroken_run_writes_what_it_promises(tiny_corpus, tmp_path):
    run = pretrain(tiny_corpus, tmp_path / "run", epochs=[2, 1], log_every=2, quiet=True, **SMALL)
    made = json.loads((run / "run.json").read_text())
    assert made["method"] == "cm-cgns"
    assert made["corpus"]["name"] == "synthetic"
    assert made["corpus"]["folder"] == str(tiny_corpus.resolve())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = [row for row in rows if "train/global" in row]
    assert {row["stage"] for row in terms} == {1, 2}
    assert all(("train/reconstruction" in row) == (row["stage"] == 2) for row in terms)
    assert any("val/recall_at_5" in row and "val/ceiling_at_5" in row for row in rows)
    assert list((run / "tensorboard").glob("events*"))
    assert len(list(run.glob("checkpoint-*"))) == 1
    assert (run / "tokenizer" / "tokenizer.json").is_file()


def stop(monkeypatch, at, corpus, out, **settings):
    """Train until just before step ``at`` of the run is through, and be interrupted there."""

    def interrupt(self, step):
        if step == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(corpus, out, **settings)


def rows_of(run):
    """What is logged, without the times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def scale_the_loss(monkeypatch):
    """16-mixed on a CPU: Fabric itself would take bfloat16 there, and no loss scale."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import MixedPrecision

    def make_fabric(*_):
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu")])

    monkeypatch.setattr("lingula.runs.pretraining.make_fabric", make_fabric)


@pytest.mark.parametrize(
    ("stop_at", "precision"),
    [(3, "32"), (7, "32"), (9, "32"), (7, "16-mixed")],  # in the first stage, in its third epoch; in the second
)
def test_a_resumed_run_has_the_bits_of_the_unbroken_one(tiny_corpus, tmp_path, monkeypatch, stop_at, precision):
    if precision == "16-mixed":
        scale_the_loss(monkeypatch)
    settings = {**SMALL, "epochs": [2, 1], "log_every": 2, "quiet": True, "checkpoint_every": 1, "precision": precision}
    settings["options"] = {**SMALL["options"], "clustering": "online", "clusters": 8}  # a bank that must survive
    monkeypatch.setattr(OnlineCentres.__init__, "__defaults__", (0.9, 1.0))  # and that starts at once
    unbroken = pretrain(tiny_corpus, tmp_path / "unbroken", **settings)

    stop(monkeypatch, stop_at, tiny_corpus, tmp_path / "broken", **settings)
    assert json.loads((checkpoint_folder(tmp_path / "broken") / "progress.json").read_text())["total"] == stop_at - 1
    broken = pretrain(tiny_corpus, tmp_path / "broken", resume=True, **settings)

    one, other = weights_of(unbroken), weights_of(broken)
    assert one["online.started"]
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    assert [row["step"] for row in rows_of(broken)] == [row["step"] for row in rows_of(unbroken)]
    assert rows_of(broken)[-1] == rows_of(unbroken)[-1]


def test_a_run_from_shards_stops_and_goes_on_with_the_same_bits(tiny_corpus, tmp_path, monkeypatch):
    url = str(tmp_path / "shards")
    monkeypatch.setattr("lingula.data.shards.SHARD_BYTES", 5 * 48 * 48)
    write_shards(PreparedCorpus.open(tiny_corpus), url, log=lambda line: None)
    settings = {**SMALL, "epochs": [2, 1], "log_every": 2, "quiet": True, "checkpoint_every": 1}
    unbroken = pretrain(url, tmp_path / "unbroken", **settings)
    assert any("val/recall_at_5" in row for row in rows_of(unbroken))
    stop(monkeypatch, 5, url, tmp_path / "broken", **settings)  # in the second epoch
    broken = pretrain(url, tmp_path / "broken", resume=True, **settings)
    one, other = weights_of(unbroken), weights_of(broken)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows_of(broken)[-1] == rows_of(unbroken)[-1]
    with pytest.raises(UserError, match="holds shards, which are for pre-training"):
        evaluate(Retrieval(), broken)
    assert ("cm-cgns", None) in evaluate(Retrieval(), broken, tiny_corpus, seeds=[0], bootstrap=10)


def test_a_resume_brings_back_the_loss_scale_of_16_mixed(tiny_corpus, tmp_path, monkeypatch):
    """Values that no run of six steps comes to by itself."""
    scale_the_loss(monkeypatch)
    settings = {**SMALL, "precision": "16-mixed", "epochs": [2, 0], "checkpoint_every": 1}
    stop(monkeypatch, 4, tiny_corpus, tmp_path / "run", quiet=True, **settings)
    path = checkpoint_folder(tmp_path / "run") / "state.pt"
    state = torch.load(path, weights_only=True)
    state["scaler"] |= {"scale": 128.0, "_growth_tracker": 50}
    torch.save(state, path)
    pretrain(tiny_corpus, tmp_path / "run", resume=True, quiet=True, **settings)
    state = torch.load(checkpoint_folder(tmp_path / "run") / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] == 128.0
    assert state["scaler"]["_growth_tracker"] == 53


def test_moments_are_loaded_where_the_parameters_have_gone(tiny_corpus, tmp_path, monkeypatch):
    """On a GPU ``setup_module`` moves the parameters; moments loaded before stay behind. Here we look at the order."""
    from lightning.fabric import Fabric

    settings = {**SMALL, "epochs": [2, 0], "checkpoint_every": 1, "quiet": True}
    stop(monkeypatch, 3, tiny_corpus, tmp_path / "run", **settings)
    calls = []
    for owner, name in ((Fabric, "setup_module"), (torch.optim.Optimizer, "load_state_dict")):

        def watched(self, *arguments, _name=name, _real=getattr(owner, name), **named):
            calls.append(_name)
            return _real(self, *arguments, **named)

        monkeypatch.setattr(owner, name, watched)
    pretrain(tiny_corpus, tmp_path / "run", resume=True, **settings)
    assert calls == ["setup_module", "load_state_dict"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_a_resume_on_a_gpu(tiny_corpus, tmp_path, monkeypatch, precision):
    settings = {**SMALL, "epochs": [2, 1], "checkpoint_every": 1, "quiet": True, "precision": precision}
    stop(monkeypatch, 5, tiny_corpus, tmp_path / "run", accelerator="cuda", **settings)
    run = pretrain(tiny_corpus, tmp_path / "run", resume=True, accelerator="cuda", **settings)
    assert all(torch.isfinite(weight).all() for weight in weights_of(run).values())


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_without_a_checkpoint_is_begun_again(tiny_corpus, tmp_path, monkeypatch, resume):
    settings = {**SMALL, "epochs": [2, 0], "log_every": 1, "quiet": True}
    unbroken = pretrain(tiny_corpus, tmp_path / "unbroken", **settings)
    stop(monkeypatch, 3, tiny_corpus, tmp_path / "run", **settings)
    run = tmp_path / "run"
    assert checkpoint_folder(run) is None
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/glo')
    (run / "tokenizer" / "tokenizer.json").write_text("{")  # even that is made anew
    if resume:
        with pytest.raises(UserError, match="its seed is 42, not 7"):
            pretrain(tiny_corpus, run, resume=True, seed=7, **settings)
    pretrain(tiny_corpus, run, resume=resume, **settings)
    assert rows_of(run) == rows_of(unbroken)
    one, other = weights_of(unbroken), weights_of(run)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_start_that_failed_does_not_block_its_folder(tiny_corpus, tmp_path):
    for wrong in ({"image_encoder": "resnet5O"}, {"options": {"alpha": 0.7}}, {"batch_size": 400}):
        with pytest.raises(UserError):
            pretrain(tiny_corpus, tmp_path / "run", **{**SMALL, **wrong}, quiet=True)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["tokenizer.partial"]
    pretrain(tiny_corpus, tmp_path / "run", epochs=[1, 0], quiet=True, **SMALL)
    assert not list((tmp_path / "run").glob("*.partial"))


def test_a_folder_of_something_else_is_left_alone(tiny_corpus, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "mine").write_text("")
    with pytest.raises(UserError, match=r"holds tokenizer but no run\.json"):
        pretrain(tiny_corpus, tmp_path, quiet=True, **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["tokenizer", "mine"]


def test_rows_after_a_step_are_dropped_and_half_a_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    keep_until(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    keep_until(path, 0)
    assert path.read_text() == ""


def test_clusters_that_never_started_are_told(tiny_corpus, tmp_path, capsys):
    options = {**SMALL["options"], "clustering": "online", "clusters": 400}
    pretrain(tiny_corpus, tmp_path / "a", epochs=[1, 1], quiet=True, **{**SMALL, "options": options})
    captured = capsys.readouterr()
    lines = [line for line in (captured.out + captured.err).splitlines() if line.startswith("warning: stage")]
    said = "no batch had at least 400 sentences with mean cosine <= 0.4, so there were no hard negatives"
    assert lines == [f"warning: stage {number}: {said}" for number in (1, 2)]


def test_third_parties_are_quiet(tiny_corpus, tmp_path):
    script = (
        "import sys; from pathlib import Path; from lingula.commands.pretrain import pretrain\n"
        f"pretrain(Path({str(tiny_corpus)!r}), Path({str(tmp_path / 'run')!r}), epochs=[1, 0], quiet=True, "
        f"precision='bf16-mixed', accelerator='cpu', **{SMALL!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: 3 steps in all")  # our own, and nothing else
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.splitlines() == [f"{tmp_path / 'run'}: trained 3 steps"]


def test_another_seed_gives_another_model_and_the_same_seed_the_same(tiny_corpus, tmp_path):
    runs = [
        pretrain(tiny_corpus, tmp_path / str(i), epochs=[1, 0], seed=seed, quiet=True, **SMALL)
        for i, seed in enumerate((1, 1, 2))
    ]
    first, same, other = (weights_of(run) for run in runs)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_refusals(tiny_corpus, tmp_path):
    with pytest.raises(UserError, match="unknown method 'cm-cgn'; did you mean 'cm-cgns'"):
        pretrain(tiny_corpus, tmp_path / "a", method="cm-cgn")
    with pytest.raises(UserError, match="no recipe 'scrach'; did you mean 'scratch'"):
        pretrain(tiny_corpus, tmp_path / "a", recipe="scrach")
    with pytest.raises(UserError, match="has no option 'mue'; did you mean 'mu'"):
        pretrain(tiny_corpus, tmp_path / "b", **{**SMALL, "options": {"mue": 2.0}})
    with pytest.raises(UserError, match=r"alpha=0\.7 and beta=0\.5"):
        pretrain(tiny_corpus, tmp_path / "c", **{**SMALL, "options": {"alpha": 0.7}})
    with pytest.raises(UserError, match="no loss term 'margins'; did you mean 'margin'"):
        pretrain(tiny_corpus, tmp_path / "d", weights={"margins": 0.0}, **SMALL)
    with pytest.raises(UserError, match="2 stages"):
        pretrain(tiny_corpus, tmp_path / "e", epochs=[1.0], **SMALL)
    with pytest.raises(UserError, match="unknown image encoder 'resnet5O'; did you mean 'resnet50'"):
        pretrain(tiny_corpus, tmp_path / "f", image_encoder="resnet5O", **SMALL)
    with pytest.raises(UserError, match="no prepared corpus at"):
        pretrain(tmp_path / "nowhere", tmp_path / "g", **SMALL)


def test_what_does_not_go_with_fsdp(tiny_corpus, tmp_path):
    settings = {**SMALL, "fsdp": True, "accelerator": "cpu"}
    with pytest.raises(UserError, match="there is one; give --devices 2 or more"):
        pretrain(tiny_corpus, tmp_path, **settings)
    with pytest.raises(UserError, match="give --precision bf16-mixed or 32"):
        pretrain(tiny_corpus, tmp_path, devices=2, precision="16-mixed", **settings)
    with pytest.raises(UserError, match="that --compile would make one"):
        pretrain(tiny_corpus, tmp_path, devices=2, compile=True, **settings)
    with pytest.raises(UserError, match="that --compile would make one"):
        pretrain(tiny_corpus, tmp_path, devices=2, cuda_graphs=True, **settings)


def test_cuda_graphs_need_cuda(tiny_corpus, tmp_path):
    with pytest.raises(UserError, match="--cuda_graphs needs a CUDA device, and this would run on cpu"):
        pretrain(tiny_corpus, tmp_path / "run", cuda_graphs=True, accelerator="cpu", **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten_nor_resumed_as_another(tiny_corpus, tmp_path):
    run = pretrain(tiny_corpus, tmp_path / "run", epochs=[1, 0], quiet=True, **SMALL)
    with pytest.raises(UserError, match="already holds a run"):
        pretrain(tiny_corpus, run, epochs=[1, 0], quiet=True, **SMALL)
    with pytest.raises(UserError, match="its seed is 42, not 7"):
        pretrain(tiny_corpus, run, epochs=[1, 0], quiet=True, seed=7, resume=True, **SMALL)
    other = {**SMALL, "batch_size": 4}
    with pytest.raises(UserError, match=r"cannot resume \S+: its batch_size is 8, not 4$"):
        pretrain(tiny_corpus, run, epochs=[1, 0], quiet=True, resume=True, **other)


def test_resolving_a_recipe():
    plan = resolve(SCRATCH, {"learning_rate": 1e-3, "clip": None}, [3, 0], {"mu": 5.0}, {"margin": 0.0})
    assert plan.learning_rate == 1e-3
    assert plan.clip == SCRATCH.clip
    assert plan.options["mu"] == 5.0
    assert plan.options["dim"] == SCRATCH.options["dim"]
    assert [stage.epochs for stage in plan.stages] == [3, 0]
    assert all(stage.weights["margin"] == 0.0 and stage.weights["global"] == 1.0 for stage in plan.stages)
    paper = resolve(type(SCRATCH)(stages=SCRATCH.stages), {"image_size": 112}, None, {}, {})
    assert (paper.image_size, paper.resize_to) == (112, 128)  # the same share is cropped


class Quadratic(torch.nn.Module):
    """loss = mean over the batch of (weight - target)^2 / 2, whose gradient is known in closed form."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps_after = 0

    def forward(self, batch):
        return {"quadratic": 0.5 * (self.weight - batch).square().mean()}

    def after_step(self):
        self.steps_after += 1


class Targets:
    def batch(self, step):
        return torch.tensor([float(step), float(step) + 1])


def test_accumulation_averages_gradients_and_the_schedule_sets_the_rate():
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    fit(fabric, wrapped, wrapped_optimizer, Targets(), lambda step: 0.1 * (step + 1), steps=2, accumulate=2)
    weight = 0.0
    for step, rate in ((0, 0.1), (1, 0.2)):
        targets = [2 * step + 0.5, 2 * step + 1.5]  # the means of the two micro-batches
        weight -= rate * sum(weight - target for target in targets) / 2
    assert model.weight.item() == pytest.approx(weight)
    assert model.steps_after == 2


def test_a_loss_that_is_not_finite_stops_the_training():
    from lightning.fabric import Fabric

    class Broken(Quadratic):
        def forward(self, batch):
            return {"quadratic": self.weight * float("nan")}

    fabric = Fabric(accelerator="cpu", devices=1)
    model = Broken()
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
    with pytest.raises(UserError, match="'quadratic' is nan by step 2"):
        fit(fabric, wrapped, optimizer, Targets(), lambda s: 0.1, 5, log_every=2, on_log=lambda *a: None)


def test_a_given_learning_rate_moves_those_of_stages_text_and_biases():
    from lingula.training.recipe import Recipe, Stage

    recipe = Recipe(
        (Stage(1, {"a": 1.0}), Stage(1, {"a": 1.0}, learning_rate=5e-5)),
        learning_rate=1e-4,
        text_learning_rate=1e-5,
        bias_learning_rate=2e-5,
    )
    plan = resolve(recipe, {"learning_rate": 2e-4}, None, {}, {})
    rates = (plan.stages[1].learning_rate, plan.text_learning_rate, plan.bias_learning_rate)
    assert rates == pytest.approx((1e-4, 2e-5, 4e-5))
    assert plan.stages[0].learning_rate is None
    assert resolve(recipe, {"learning_rate": None}, None, {}, {}) == recipe


def test_a_method_that_reads_needs_reports(tiny_corpus, tmp_path, monkeypatch):
    from lingula.data.prepared import PreparedCorpus

    monkeypatch.setattr(PreparedCorpus, "training_texts", lambda self: [])
    with pytest.raises(UserError, match="has no train studies with a report, which method 'clip' reads"):
        pretrain(tiny_corpus, tmp_path / "run", method="clip", recipe="scratch", quiet=True)
    assert not list((tmp_path / "run").iterdir())


def test_layers_without_published_weights_are_not_frozen(tiny_corpus, tmp_path):
    small = {"image_encoder": "small_resnet", "text_encoder": "small_bert", "image_size": 32, "batch_size": 8}
    settings = {**small, "pretrained": False, "options": {"dim": 32}, "epochs": [1], "quiet": True}
    pretrain(tiny_corpus, tmp_path / "run", method="convirt", precision="32", **settings)  # paper: 6 frozen layers


def test_checkpointed_activations_train_the_same_weights(tiny_corpus, tmp_path):
    settings = SMALL | {"image_encoder": "resnet10t", "pretrained": False, "epochs": [1, 0], "quiet": True}
    plain = weights_of(pretrain(tiny_corpus, tmp_path / "plain", **settings))
    again = weights_of(pretrain(tiny_corpus, tmp_path / "again", checkpoint_activations=True, **settings))
    for key, value in plain.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(again[key], value, rtol=1e-4, atol=1e-5, msg=key)
    with pytest.raises(UserError, match="'small_resnet' cannot checkpoint its activations"):
        pretrain(tiny_corpus, tmp_path / "small", checkpoint_activations=True, epochs=[1, 0], quiet=True, **SMALL)


@pytest.mark.slow
def test_compiled_encoders_train_the_same_weights_from_two_graphs(tiny_corpus, tmp_path):
    from torch._dynamo.utils import counters

    settings = SMALL | {"epochs": [2, 0], "quiet": True}
    plain = weights_of(pretrain(tiny_corpus, tmp_path / "plain", **settings))
    counters.clear()
    compiled = weights_of(pretrain(tiny_corpus, tmp_path / "compiled", compile=True, **settings))
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-2, atol=1e-3, msg=key)
    # one of the films and one of the reports; the validation's batches and modes have their own
    assert counters["stats"]["unique_graphs"] <= 6
    assert not counters["graph_break"]


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("cm-cgns", {"epochs": [1, 0.5], "batch_size": 8}, "raise --epochs (now 1 0.5) or lower --batch_size (now 8)"),
        ("clip", {"epochs": [2], "batch_size": 2}, "raise --epochs (now 2)"),
        (
            "clip",
            {"batch_size": 4},
            "raise --epochs (now 10) or lower --batch_size (now 4) or lower --accumulate (now 3)",
        ),
    ],
)
def test_a_run_too_short_to_learn_names_what_makes_it_longer(method, settings, said):
    changed = {name: value for name, value in settings.items() if name != "epochs"}
    plan = resolve(recipe_of(method, "scratch"), changed, settings.get("epochs"), {}, {})
    accumulate = 3 if "accumulate" in said else 1
    about = "99 steps in all, too few to learn from (docs/comparison.md has 930 for the scratch recipe)"
    assert few_steps(99, method, "scratch", plan, accumulate) == f"warning: {about}; {said}"
    assert few_steps(100, method, "scratch", plan, accumulate) is None
    assert few_steps(1, method, "paper", plan, accumulate) == f"warning: 1 step in all, too few to learn from; {said}"


def test_the_warning_counts_the_steps_of_the_published_comparison():
    page = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text()
    assert "the same 3,000 pairs, the same ten epochs of 32" in page
    assert SCRATCH_STEPS == 10 * (3000 // 32)
    assert (sum(stage.epochs for stage in SCRATCH.stages), SCRATCH.batch_size) == (10, 32)


def test_studies_that_fill_no_batch_are_told_the_largest_that_they_do(tiny_corpus, tmp_path):
    settings = {**SMALL, "quiet": True, "accelerator": "cpu"}
    with pytest.raises(
        UserError, match=r"24 train studies with a report do not fill .* 32; give --batch_size 24 or less$"
    ):
        pretrain(tiny_corpus, tmp_path / "a", **{**settings, "batch_size": 32})
    alone = SimpleNamespace(name="x", rows=lambda split: np.arange(1))
    plan = dataclasses.replace(SCRATCH, batch_size=2)
    pairs, images = (
        SimpleNamespace(uses_text=True, smallest_batch=1),
        SimpleNamespace(uses_text=False, smallest_batch=1),
    )
    tokens = SimpleNamespace(sentences=np.array([3]))
    with pytest.raises(UserError, match=r"1 train study with a report does not fill one batch of 2; 2 or more"):
        check_batch(alone, tokens, plan, pairs, 1)
    with pytest.raises(UserError, match=r"1 train study does not fill one batch of 2; give --batch_size 1 or less$"):
        check_batch(alone, None, plan, images, 1)
    with pytest.raises(UserError, match=r"batch of 2 on each of 4 processes; 4 or more are needed$"):
        check_batch(alone, None, plan, images, 4)


@pytest.mark.parametrize("named", ["small_bert", "models/bert"])
def test_weights_that_a_recipe_does_not_take_are_said(named, capsys):
    from types import SimpleNamespace

    from lingula.runs.parts import _say_what_is_random
    from lingula.runs.recipes import recipe_of

    plan = dataclasses.replace(recipe_of("clip", "scratch"), text_encoder=named)
    _say_what_is_random(SimpleNamespace(print=print), plan, False, None, object())
    note = "note: 'models/bert' starts from random weights; --pretrained true takes its own\n"
    assert capsys.readouterr().err == ("" if named == "small_bert" else note)
