"""The hub: asked once where it does not answer, its cache read then; and no code of a stranger's ever run."""

import ast
import builtins
import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import AutoConfig, BertConfig, BertModel

import lingula
from lingula.data.tokens import load_tokenizer, train_tokenizer
from lingula.nn import hub
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.text_encoders import TextEncoder, text_config
from lingula.registry import UserError
from lingula.runs.model import load

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


@pytest.fixture(autouse=True)
def _ask_anew():
    hub._answers.cache_clear()
    yield
    hub._answers.cache_clear()


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(404)  # any answer is one
        self.end_headers()

    def log_message(self, *_):
        pass


def test_whether_the_hub_answers(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "SECONDS", 60)  # of a machine that does other things too
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert hub.reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server.shutdown()
    server.server_close()
    hub._answers.cache_clear()
    assert not hub.reachable()  # nobody listens there any more
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the call, and never says a word
        monkeypatch.setattr(hub, "SECONDS", 0.1)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert not hub.reachable()


@pytest.mark.parametrize("answers", [True, False])
def test_the_network_is_used_only_where_the_hub_answers(monkeypatch, tmp_path, answers):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", lambda *_: answers)
    asked = []

    class Auto:
        @staticmethod
        def from_pretrained(name, **options):
            asked.append((options["local_files_only"], options["trust_remote_code"]))

    hub.fetch(Auto, "some/name")
    hub.fetch(Auto, tmp_path)
    assert asked == [(not answers, False), (True, False)]
    with hub.cache_if_unreachable():
        assert constants.HF_HUB_OFFLINE is not answers
    assert constants.HF_HUB_OFFLINE is False


def cached(cache, name):
    """The folder of a repository in the hub's cache, as its client lays it out."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("0" * 40)


def test_what_is_in_the_cache_is_used_where_the_hub_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_answers", lambda *_: False)
    for build in (lambda: text_config("some/bert", 50), lambda: load_tokenizer("some/bert")):
        with pytest.raises(
            UserError,
            match=r"hub cannot be reached in .*; .*--text_encoder FOLDER .*--image_weights FILE.* --recipe scratch",
        ):
            build()
    with pytest.raises(
        UserError, match=r"'resnet10t': the .* hub cannot be reached .*; .*--image_weights FILE.* scratch"
    ):
        ImageEncoder("resnet10t", 32, pretrained=True)
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**SIZES))
    bert.save_pretrained(cached(tmp_path, "some/bert"))
    found = TextEncoder(text_config("some/bert", 50), "some/bert").backbone.state_dict()
    assert all(torch.equal(found[key], bert.state_dict()[key]) for key in found)
    weights = timm.create_model("resnet10t").state_dict()
    save_file(weights, cached(tmp_path, timm.get_pretrained_cfg("resnet10t").hf_hub_id) / "model.safetensors")
    found = ImageEncoder("resnet10t", 32, pretrained=True).backbone.state_dict()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="the Hugging Face hub is not asked: HF_HUB_OFFLINE is set; go online"):
        text_config("some/other", 50)
    assert all(torch.equal(found[key], weights[key]) for key in found if key != "conv1.0.weight")


# Code beside the weights.


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that the code of :func:`poison` makes when it runs; asking whether it may is a failure too."""

    def asked(*_):
        raise AssertionError("asked whether to run the code")

    monkeypatch.setattr(builtins, "input", asked)
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


def poison(folder, canary, file="config.json", **changes):
    """Python code in the folder, which its configuration names."""
    code = f"""open({str(canary)!r}, "w").close()
from transformers import BertConfig, BertModel, BertTokenizer
class Config(BertConfig): pass
class Model(BertModel): pass
class Tokenizer(BertTokenizer): pass
"""
    (folder / "own.py").write_text(code)
    names = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
    about = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**about, "auto_map": names, **changes}))
    return folder


@pytest.mark.parametrize("changes", [{}, {"model_type": "own-bert"}], ids=["a known type", "a type of its own"])
def test_no_code_of_a_text_encoder_runs(tmp_path, canary, changes):
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "bert")
    folder = poison(tmp_path / "bert", canary, **changes)
    with pytest.raises(UserError, match="comes with code of its own, which lingula never runs"):
        text_config(str(folder), 50)
    with pytest.raises(UserError, match="comes with code of its own"):
        TextEncoder(BertConfig(**SIZES, auto_map={"AutoModel": "own.Model"}), folder)
    if changes:  # it would have run
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
        canary.unlink()


def test_no_kernel_of_a_text_encoder_is_fetched(tmp_path):
    BertConfig(**SIZES).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**about, "attn_implementation": "stranger/kernel"}))
    with pytest.raises(UserError, match="comes with code of its own"):
        text_config(str(tmp_path), 50)


@pytest.mark.parametrize("changes", [{}, {"tokenizer_class": "Own"}], ids=["a known class", "a class of its own"])
def test_no_code_of_a_tokenizer_runs(tmp_path, canary, changes):
    train_tokenizer(["a heart of normal size and the lungs are clear", "an effusion"] * 3, tmp_path / "words")
    with pytest.raises(UserError, match="comes with code of its own"):
        load_tokenizer(poison(tmp_path / "words", canary, "tokenizer_config.json", **changes))


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_no_code_of_a_run_runs(tiny_run, tmp_path, canary, part):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    file, changes = ("config.json", {"model_type": "own"}) if part == "text_encoder" else ("tokenizer_config.json", {})
    poison(run / part, canary, file, **changes)
    with pytest.raises(UserError, match="comes with code of its own"):
        load(run)


def test_every_model_of_transformers_is_told_to_run_no_code():
    """Whoever calls ``from_pretrained`` or ``from_config`` of an Auto class says so there."""
    found = []
    for path in Path(lingula.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("from_pretrained", "from_config"):
                said = {keyword.arg: keyword.value for keyword in node.keywords}
                found.append(path.name)
                assert ast.literal_eval(said["trust_remote_code"]) is False, path
    assert {"hub.py", "text_encoders.py", "clinical.py"} <= set(found)
