"""What is computed of a corpus once: by one of several processes, whole or not at all, elsewhere where it must."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from lingula.data import derived as module
from lingula.data.derived import derived
from lingula.registry import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lingula"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def write(folder):
    (folder / "a.bin").write_bytes(b"abc")


def test_made_once(corpus):
    calls = []

    def make(folder):
        calls.append(folder)
        write(folder)

    first = derived(corpus, "tokens-1", make)
    assert first == corpus / "derived" / "tokens-1"
    assert derived(corpus, "tokens-1", make) == first
    assert derived(corpus, "tokens-2", make) != first
    assert len(calls) == 2
    assert (first / "a.bin").read_bytes() == b"abc"
    assert sorted(path.name for path in (corpus / "derived").iterdir()) == ["lock", "tokens-1", "tokens-2"]


def test_what_fails_leaves_nothing(corpus):
    def fail(folder):
        write(folder)
        raise UserError("another language")

    with pytest.raises(UserError, match="another language"):
        derived(corpus, "tokens-1", fail)
    assert [path.name for path in (corpus / "derived").iterdir()] == ["lock"]


def _slowly(folder):
    (folder.parent / f"made-{os.getpid()}").touch()
    write(folder)
    time.sleep(0.5)


def _process(corpus, found):
    found.put(str(derived(Path(corpus), "tokens-1", _slowly)))


def test_of_several_processes_one_makes_it_and_the_others_wait(corpus):
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    processes = [context.Process(target=_process, args=(str(corpus), found)) for _ in range(4)]
    for process in processes:
        process.start()
    assert {found.get(timeout=30) for _ in processes} == {str(corpus / "derived" / "tokens-1")}
    for process in processes:
        process.join()
    assert len(list((corpus / "derived").glob("made-*"))) == 1


def test_without_locks_the_first_that_is_whole_stays(corpus, monkeypatch):
    """Two machines at once, on a storage that knows no locks."""
    monkeypatch.setitem(__import__("sys").modules, "fcntl", None)

    def overtaken(folder):
        derived(corpus, "tokens-1", write)
        (folder / "a.bin").write_bytes(b"late")

    assert (derived(corpus, "tokens-1", overtaken) / "a.bin").read_bytes() == b"abc"
    assert sorted(path.name for path in (corpus / "derived").iterdir()) == ["lock", "tokens-1"]


def test_what_a_killed_process_left_goes_after_a_day(corpus):
    for name, age in (("old", 2 * module.LEFT_BEHIND), ("new", 60)):
        left = corpus / "derived" / f"{name}.partial"
        left.mkdir(parents=True)
        os.utime(left, (time.time() - age,) * 2)
    derived(corpus, "tokens-1", write)
    assert sorted(path.name for path in (corpus / "derived").glob("*.partial")) == ["new.partial"]


def refuse(monkeypatch, folders):
    """Nothing may be written below these folders (whoever runs the tests may write to read-only ones)."""
    mkdir = Path.mkdir

    def refusing(self, *args, **options):
        if any(self.is_relative_to(folder) for folder in folders):
            raise OSError(30, "Read-only file system")
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refusing)


def test_a_corpus_that_may_not_be_written_to(corpus, cache, monkeypatch):
    refuse(monkeypatch, [corpus])
    place = derived(corpus, "tokens-1", write)
    assert place.is_relative_to(cache)
    assert derived(corpus, "tokens-1", write) == place
    other = corpus.with_name("other")
    os.mkdir(other)  # noqa: PTH102 - ours refuses
    assert derived(other, "tokens-1", write) == other / "derived" / "tokens-1"
    refuse(monkeypatch, [corpus, cache])
    with pytest.raises(UserError, match=r"cannot write tokens \(.*derived: Read-only.*XDG_CACHE_HOME"):
        derived(corpus, "tokens-2", write)
