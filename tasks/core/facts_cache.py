"""Facts kept from run to run, by content: `<home>/facts/facts.sqlite`, outside DVC, safe to delete at any time.

Only facts that this very code made are used: the key is a hash of the code and of the libraries that decode. Nothing here can
make a wrong fact: each entry carries a check, and a damaged file is thrown away. So the file is not forced to the disk either:
a killed process loses nothing that was put, a power cut at worst the file.
"""

import hashlib
import json
import platform
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import cv2
import PIL
from PIL import features

from tasks.core.runtime import acclimate_home

Facts = dict[str, object]
T = TypeVar("T")
CODE = ("facts", "headers", "measures", "duplicates")  # modules of this folder that decide what a fact is
DECODERS = ("jpg", "zlib", "libtiff", "webp", "avif", "jpg_2000")
BUSY_SECONDS = 60
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS facts (key TEXT, content_id TEXT, facts TEXT, sum TEXT, PRIMARY KEY (key, content_id))"
)


class FactsCache:
    """Facts by content_id. `n_found` counts what `get` gave; `problem` says why nothing is kept, "" = all is well."""

    def __init__(self) -> None:
        self.path = acclimate_home() / "facts" / "facts.sqlite"
        self.key = code_key()
        self.n_found = 0
        self.problem = ""
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> "FactsCache":
        self._keep(lambda database: database.execute("DELETE FROM facts WHERE key != ?", [self.key]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def get(self, content_ids: list[str]) -> dict[str, Facts]:
        """Those that are known; each that is asked for twice counts twice."""
        wanted = json.dumps(sorted(set(content_ids) - {""}))
        query = (
            "SELECT content_id, facts, sum FROM facts WHERE key = ? AND content_id IN (SELECT value FROM json_each(?))"
        )
        rows = self._keep(lambda database: database.execute(query, [self.key, wanted]).fetchall()) or []
        found = {content_id: json.loads(text) for content_id, text, check in rows if check == _check(content_id, text)}
        self.n_found += sum(content_id in found for content_id in content_ids)
        return found

    def put(self, facts: dict[str, Facts]) -> None:
        entries = []
        for content_id, values in facts.items():
            text = json.dumps(values)
            entries.append((self.key, content_id, text, _check(content_id, text)))
        if entries:
            self._keep(
                lambda database: database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", entries)
            )

    def _keep(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The work's result, in one transaction; None where there can be no cache. A damaged file is made anew once."""
        for _ in range(2):
            if self.problem:
                break
            try:
                if self._database is None:
                    self._database = _opened(self.path)
                with self._database:
                    return work(self._database)
            except sqlite3.OperationalError as error:  # locked for long, no room, not writable
                self._give_up(str(error))
            except sqlite3.DatabaseError:  # damaged
                self._close()
                _remove(self.path)
            except OSError as error:
                self._give_up(error.strerror or str(error))
        else:
            self._give_up("the file is damaged again and again")
        return None

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None


def code_key() -> str:
    """A hash of all that decides what the facts of given bytes are."""
    digest = hashlib.sha256()
    for name in CODE:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    versions = [PIL.__version__, cv2.__version__, platform.machine(), *(features.version(name) for name in DECODERS)]
    digest.update(json.dumps(versions).encode())
    return digest.hexdigest()[:16]


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(SCHEMA)
        database.commit()
    except sqlite3.Error:
        database.close()
        raise
    return database


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)


def _check(content_id: str, text: str) -> str:
    return hashlib.sha256(f"{content_id}\n{text}".encode()).hexdigest()[:16]
