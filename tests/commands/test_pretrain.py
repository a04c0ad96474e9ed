"""Training: it learns, it stops and goes on with the same bits, it refuses in words."""

import json

import pytest
import torch

from lingula.checkpoint import checkpoint_folder
from lingula.commands.pretrain import pretrain, resolve
from lingula.methods.cm_cgns import SCRATCH
from lingula.registry import UserError
from lingula.train import fit

SMALL = {"recipe": "scratch", "image_size": 32, "batch_size": 8, "options": {"dim": 32, "decoder_widths": [8, 8]}}


def weights_of(run):
    from safetensors.torch import load_file

    return load_file(checkpoint_folder(run) / "weights.safetensors")


def test_an_unbroken_run_writes_what_it_promises(tiny_corpus, tmp_path):
    run = pretrain(tiny_corpus, tmp_path / "run", epochs=[2, 1], log_every=2, quiet=True, **SMALL)
    made = json.loads((run / "run.json").read_text())
    assert made["method"] == "cm-cgns"
    assert made["corpus"]["name"] == "synthetic"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = [row for row in rows if "train/global" in row]
    assert {row["stage"] for row in terms} == {1, 2}
    assert all(("train/reconstruction" in row) == (row["stage"] == 2) for row in terms)
    assert any("val/recall_at_5" in row and "val/ceiling_at_5" in row for row in rows)
    assert list((run / "tensorboard").glob("events*"))
    assert len(list(run.glob("checkpoint-*"))) == 1
    assert (run / "tokenizer" / "tokenizer.json").is_file()


@pytest.mark.parametrize("stop_at", [3, 7, 9])  # in the first stage, in the middle of its second epoch; in the second
def test_a_resumed_run_has_the_bits_of_the_unbroken_one(tiny_corpus, tmp_path, monkeypatch, stop_at):
    settings = {**SMALL, "epochs": [2, 1], "log_every": 2, "quiet": True, "checkpoint_every": 1}
    settings["options"] = {**SMALL["options"], "clustering": "online", "clusters": 8}  # a bank that must survive
    unbroken = pretrain(tiny_corpus, tmp_path / "unbroken", **settings)

    import lingula.log

    def interrupt(self, step):
        if step == stop_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lingula.log.Log, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny_corpus, tmp_path / "broken", **settings)
    assert json.loads((checkpoint_folder(tmp_path / "broken") / "progress.json").read_text())["total"] == stop_at - 1
    broken = pretrain(tiny_corpus, tmp_path / "broken", resume=True, **settings)

    one, other = weights_of(unbroken), weights_of(broken)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    last = [[json.loads(x) for x in (r / "metrics.jsonl").read_text().splitlines()][-1] for r in (unbroken, broken)]
    assert {k: v for k, v in last[0].items() if k != "seconds"} == {k: v for k, v in last[1].items() if k != "seconds"}


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


def test_a_run_is_never_overwritten_nor_resumed_as_another(tiny_corpus, tmp_path):
    run = pretrain(tiny_corpus, tmp_path / "run", epochs=[1, 0], quiet=True, **SMALL)
    with pytest.raises(UserError, match="already holds a run"):
        pretrain(tiny_corpus, run, epochs=[1, 0], quiet=True, **SMALL)
    with pytest.raises(UserError, match="its seed is 42, not 7"):
        pretrain(tiny_corpus, run, epochs=[1, 0], quiet=True, seed=7, resume=True, **SMALL)


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
