"""What is computed of a corpus once and then mapped by every process: tokens, numbered meanings. Floor 2.

It lies in ``derived/`` of the corpus; where that may not be written to, or is full, in the user's cache
(``$XDG_CACHE_HOME/lingula``, else ``~/.cache/lingula``). It may be deleted whenever nothing runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lingula.registry import UserError

LEFT_BEHIND = 86_400.0  # seconds after which an unfinished folder is nobody's


def derived(corpus: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of what is called ``name``; made if it is not there yet.

    Of several processes on one machine the first makes it, the others wait. It is written under another name and
    renamed, so that it is there whole or not at all.

    Args:
        corpus: folder of the prepared corpus.
        name: equal exactly where the content is.
        make: writes into an empty folder.
    Raises:
        UserError: if nowhere can be written to.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lingula"
    own = hashlib.sha256(str(corpus.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    places = [corpus / "derived", cache / own]
    for place in places:
        if (place / name).is_dir():
            return place / name
    refused = []
    for place in places:
        try:
            return _make(place, name, make)
        except OSError as err:
            refused.append(f"{place}: {err.strerror or err}")
    raise UserError(f"cannot write tokens ({'; '.join(refused)}); set XDG_CACHE_HOME to a folder with room")


def _make(place: Path, name: str, make: Callable[[Path], None]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place) as alone:
        if (place / name).is_dir():
            return place / name
        if alone:
            for left in place.glob("*.partial"):  # of a process that was killed; not of another machine at work
                if time.time() - left.stat().st_mtime > LEFT_BEHIND:
                    shutil.rmtree(left, ignore_errors=True)
        partial = place / f"{name}-{uuid.uuid4().hex[:8]}.partial"
        try:
            partial.mkdir()
            make(partial)
            for file in partial.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            try:
                partial.rename(place / name)
            except OSError:
                if not (place / name).is_dir():  # another machine was quicker
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place / name


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Hold the folder's lock; False on a system or a storage without locks, where at worst work is done twice."""
    with (place / "lock").open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except (ImportError, OSError):
            alone = False
        yield alone
