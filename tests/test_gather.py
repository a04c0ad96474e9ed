"""The batch of all processes: on one process, and on two that are really started, with gloo on the loopback.

The two processes are this file run as a script, which forks as soon as it has imported torch: once for all the checks,
and without transformers, whose import alone would cost more than all of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lingula.batch import Reports, TextFeatures
from lingula.gather import gather, mean_over_all, row_counts, sum_over_all, world
from lingula.methods.cm_cgns import CMCGNS
from lingula.nn import kmeans
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.sentences import sentence_means

RAGGED = (3, 1)  # rows of the two processes


def rows(rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(RAGGED[rank], 2, generator=generator, dtype=torch.float64)


def factors(rank: int) -> torch.Tensor:
    return torch.arange(1.0, 9.0, dtype=torch.float64).view(4, 2) * (rank + 1)


def work(rank: int, folder: Path) -> dict:
    """What each of two processes does, and what it has to show for it."""
    shown: dict = {"world": world()}
    x = rows(rank).requires_grad_()
    shown["row_counts"] = row_counts(len(x), x.device)
    everything = gather(x)
    (everything * factors(rank)).sum().backward()
    shown["gathered"], shown["grad"] = everything.detach(), x.grad
    shown["given sizes"] = gather(x, list(RAGGED)).detach()
    shown["integers"] = gather(torch.full((RAGGED[rank],), 2**40 + rank))

    x, other = rows(rank).requires_grad_(), torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    beside = 1.0 * other  # made before the gather, so its backward comes after the gather's
    ((gather(x) + beside) * factors(rank)).sum().backward()  # autograd hands both the same gradient tensor
    shown["grad beside"], shown["grad of other"] = x.grad, other.grad

    nobody = gather(torch.zeros(0 if rank else 2, 2, requires_grad=True))
    nobody.sum().backward()
    shown["empty"] = nobody.detach()

    total = torch.tensor(10.0 + rank, requires_grad=True)
    mean = mean_over_all(total, 3 if rank else torch.tensor(5))
    mean.backward()
    shown["mean"], shown["grad of total"] = mean.detach(), total.grad
    shown["mean of nothing"] = mean_over_all(torch.tensor(0.0), 0)
    shown["sum"] = sum_over_all(rows(rank)[:1].expand(2, 2))
    with limits(many=True):
        shown["clusters"] = kmeans.spherical_kmeans(*POINTS, sizes=[25, 15])

    halves = torch.load(folder / "halves.pt", weights_only=False)
    films = torch.cat([half.image for half in halves])
    for name, options in MODELS.items():
        model = build(options, films)
        halves[rank].reports.sentences_of_all = [4, 3] if name == "sentences known" else None
        parallel = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        with limits(name == "many sentences"), all_reduced() as reduced:
            terms = parallel(halves[rank])
            sum(terms.values()).backward()
        model.after_step()
        shown[name] = {
            "terms": {term: value.detach() for term, value in terms.items()},
            "grads": {key: p.grad for key, p in model.named_parameters()},
            "buffers": dict(model.named_buffers()),
            "integers reduced": sum(not x.is_floating_point() for x in reduced),
        }
    return shown


# Each line is a model whose two halves of a batch must give the gradients of the whole.
TINY = {"dim": 8, "clusters": 3, "decoder_widths": (8, 8, 4, 4, 4)}
MODELS = {
    "the paper": {},
    "batch": {"hard_negatives": "batch", "mask_false_negatives": True},
    "own": {"hard_negatives": "own", "mask": "channels"},
    "official": {
        "clustering": "online",
        "hard_negatives": "official",
        "false_negatives": "text",
        "learnable_temperature": True,
        "temperature_global": 0.1,
        "temperature_local": 1.0,
        "projection_layers": 1,
        "project_tokens": True,
    },
    "no hard negatives": {"hard_negatives": "none"},
    "every second batch": {"cluster_every": 2},
    "many sentences": {},  # more than a tile, and than one process clusters alone
    "sentences known": {},  # how many there are on each process
}
POINTS = torch.randn(40, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64), 6, 3


@contextlib.contextmanager
def limits(many: bool) -> Iterator[None]:
    """Where there are many sentences, losses go tile by tile and processes share the clustering."""
    before = kmeans.GRAM_LIMIT, CMCGNS.tile
    if many:
        kmeans.GRAM_LIMIT, CMCGNS.tile = 0, 2
    yield
    kmeans.GRAM_LIMIT, CMCGNS.tile = before


@contextlib.contextmanager
def all_reduced() -> Iterator[list[torch.Tensor]]:
    """What is handed to all_reduce meanwhile."""
    seen: list[torch.Tensor] = []
    reduce = dist.all_reduce
    dist.all_reduce = lambda x, *rest, **more: (seen.append(x), reduce(x, *rest, **more))[1]
    yield seen
    dist.all_reduce = reduce


class Words(torch.nn.Module):
    """A text encoder without context: a token is its row of a table."""

    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(40, self.width)

    def forward(self, reports: Reports) -> TextFeatures:
        states = self.table(reports.token_ids)
        sentences = sentence_means(states, reports.sentence_of_token, reports.sentence_count)
        return TextFeatures(states, reports.token_mask, sentences, reports.report_of_sentence)


def build(options: dict, films: torch.Tensor) -> CMCGNS:
    """A model for which these films differ, so that the sentences' nearest centres do too."""
    torch.manual_seed(0)
    model = CMCGNS(ImageEncoder("small_resnet", 32), Words(), 32, **TINY | options).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # its statistics are each process's own
    with torch.no_grad():
        for name, parameter in model.patch_projection.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        model.patch_projection[-1].bias.sub_(model.encode_image(films).patches.mean((0, 1)))
        model.cross_attention.image_key.weight.mul_(30)
    if model.online is not None:  # a bank that has started
        model.online.centres.copy_(torch.nn.functional.normalize(torch.randn_like(model.online.centres)))
        model.online.started.fill_(True)
    return model


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    child = os.fork()  # no thread has been started yet
    rank = 1 if child == 0 else 0
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(work(rank, folder), folder / f"{rank}.pt")
    dist.destroy_process_group()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.fixture(scope="module")
def whole(tiny):
    """Four pairs with seven sentences: of the two processes one gets four of these, the other three."""
    return tiny.double(tiny.batch((3, 1, 1, 2)))


@pytest.fixture(scope="module")
def two(whole, tiny, tmp_path_factory):
    """What two processes have to show."""
    folder = tmp_path_factory.mktemp("two")
    torch.save((tiny.take(whole, [0, 1]), tiny.take(whole, [2, 3])), folder / "halves.pt")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_on_one_process_everything_is_the_identity():
    x = torch.randn(3, 2, requires_grad=True)
    assert world() == (0, 1)
    assert row_counts(3, x.device) == [3]
    assert gather(x) is x
    assert mean_over_all(torch.tensor(6.0), 4).item() == 1.5
    assert mean_over_all(torch.tensor(6.0), torch.tensor(4)).item() == 1.5
    assert mean_over_all(torch.tensor(0.0), 0).item() == 0.0


def test_ragged_rows_in_the_order_of_the_ranks(two):
    everything = torch.cat([rows(0), rows(1)])
    for rank in range(2):
        assert two[rank]["world"] == (rank, 2)
        assert two[rank]["row_counts"] == list(RAGGED)
        assert torch.equal(two[rank]["gathered"], everything)
        assert torch.equal(two[rank]["given sizes"], everything)
        assert two[rank]["integers"].tolist() == [2**40] * 3 + [2**40 + 1]
        assert two[rank]["empty"].shape == (2, 2)


def test_the_gradient_is_the_sum_over_everybodys_copy(two):
    total = factors(0) + factors(1)
    assert torch.equal(two[0]["grad"], total[:3])
    assert torch.equal(two[1]["grad"], total[3:])


def test_the_backward_keeps_its_hands_off_other_gradients(two):
    total = factors(0) + factors(1)
    assert torch.equal(two[0]["grad beside"], total[:3])
    for rank in range(2):
        assert torch.equal(two[rank]["grad of other"], factors(rank))


def test_a_ragged_mean(two):
    for rank in range(2):
        assert two[rank]["mean"].item() == (10 + rank) * 2 / 8
        assert two[rank]["grad of total"].item() == 2 / 8
        assert two[rank]["mean of nothing"].item() == 0.0
    # averaged over the processes, as DDP averages gradients, it is the mean of all samples
    assert (two[0]["mean"] + two[1]["mean"]).item() / 2 == pytest.approx(21 / 8)


def test_two_processes_share_the_clustering_of_many_points(two):
    with limits(many=True):
        alone = kmeans.spherical_kmeans(*POINTS)
    for rank in range(2):
        assert torch.equal(two[rank]["clusters"].assignment, alone.assignment)
        torch.testing.assert_close(two[rank]["clusters"].centres, alone.centres)
        assert torch.equal(two[rank]["sum"], (rows(0)[:1] + rows(1)[:1]).expand(2, 2))


def test_nobody_asks_what_the_loader_knows(two):
    assert two[0]["the paper"]["integers reduced"] == 1  # how many sentences each has: the host waits for the answer
    assert two[0]["sentences known"]["integers reduced"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_two_halves_give_the_gradient_of_the_whole(whole, two, name):
    model = build(MODELS[name], whole.image)
    drawn = model.attend(whole.image, whole.reports).image_to_report.detach()
    centres = kmeans.spherical_kmeans(drawn, 3, whole.seed, whole.reports.sentence_key).centres
    first_two = (model.encode_text(whole.reports).sentences @ centres.T).topk(2, dim=1).indices
    assert all(len(column.unique()) > 1 for column in first_two.T)  # or it did not matter whose centres they are
    with limits(name == "many sentences"):
        terms = model(whole)
        sum(terms.values()).backward()
    model.after_step()
    assert terms.keys() == two[0][name]["terms"].keys()
    for term, value in terms.items():
        halves = (two[0][name]["terms"][term] + two[1][name]["terms"][term]) / 2
        # the painted film is compared in float32, and two halves are summed in another order: 1e-7, not 1e-16
        torch.testing.assert_close(halves, value.detach(), rtol=1e-5, atol=1e-7, check_dtype=False)
    if name != "no hard negatives":
        assert terms["margin"] > 0  # or the comparison says nothing about it
    for key, parameter in model.named_parameters():
        for rank in range(2):
            half = two[rank][name]["grads"][key]
            if parameter.grad is None:
                assert half is None or half.abs().max() == 0
                continue
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(half, parameter.grad, rtol=1e-5, atol=1e-5 * scale + 1e-9, msg=f"{name}: {key}")
    for key, buffer in model.named_buffers():
        for rank in range(2):
            torch.testing.assert_close(two[rank][name]["buffers"][key], buffer, msg=f"{name}: {key}")
    if name == "official":
        assert model.online.started


if __name__ == "__main__":
    main()
