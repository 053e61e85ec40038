"""Processes for work on small pieces of data. Python's lock keeps threads from sharing it: 128 px images take as long on two
threads as on one, and 0.6 of it in two processes (benchmarks/facts_throughput.py). Large ones are as quick in threads.

Processes take a second or two to start. Until they run, and where they can't, the work is done where it is asked for: the
results are the same. They are plain processes on pipes: unlike multiprocessing's they neither run the caller's script again,
nor fork a process that has threads, nor outlive a killed one (their input ends with it).
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, BinaryIO, Generic, TypeVar

T = TypeVar("T")
SMALL_BYTES = 2**16
FEW = 1000  # small pieces before processes are worth their start
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from {module} import {name}; from {here} import serve; serve({name})"
)


class Workers(Generic[T]):
    """Results of `work` (a function of a module) for pieces of data; any number of threads may call `results` at once."""

    def __init__(self, work: Callable[[bytes], T], n_processes: int) -> None:
        self._work = work
        self._n_processes = n_processes
        self._n_small = 0
        self._lock = Lock()
        self._starter = ThreadPoolExecutor(1)
        self._start: Future[list[subprocess.Popen[bytes]]] | None = None
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    def __enter__(self) -> "Workers[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._starter.shutdown()
        for process in self._start.result() if self._start else []:
            process.kill()
            process.communicate()

    def results(self, pieces: list[bytes]) -> list[T]:
        """In the order of the pieces. ChildProcessError where a process died."""
        small = [number for number, piece in enumerate(pieces) if len(piece) <= SMALL_BYTES]
        self._count(len(small))
        if not small or not self._run():
            return [self._work(piece) for piece in pieces]
        done = dict(zip(small, self._sent([pieces[number] for number in small]), strict=True))
        return [done[number] if number in done else self._work(piece) for number, piece in enumerate(pieces)]

    def _sent(self, pieces: list[bytes]) -> list[T]:
        process = self._idle.get()
        try:
            _send(process.stdin, pieces)
            return _receive(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise ChildProcessError(f"a process ended while it worked (exit code {process.wait()})") from None
        finally:
            self._idle.put(process)

    def _count(self, n_small: int) -> None:
        with self._lock:
            self._n_small += n_small
            if self._start is None and self._n_small > FEW and self._n_processes:
                self._start = self._starter.submit(self._started)

    def _run(self) -> bool:
        return self._start is not None and self._start.done() and bool(self._start.result())

    def _started(self) -> list[subprocess.Popen[bytes]]:
        """The processes, once each has said that it is ready; none where one could not start."""
        program = PROGRAM.format(module=self._work.__module__, name=self._work.__name__, here=__name__)
        arguments = [sys.executable, "-c", program, str(Path(__file__).parents[2])]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(self._n_processes):
                processes.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for process in processes:
                _receive(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            for process in processes:
                process.kill()
                process.communicate()
            return []
        for process in processes:
            self._idle.put(process)
        return processes


def serve(work: Callable[[bytes], Any]) -> None:
    """Works until its input ends. What the work prints goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is told once, by the parent
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _send(answers, "ready")
    while True:
        try:
            pieces = _receive(sys.stdin.buffer)
        except EOFError:
            return
        _send(answers, [work(piece) for piece in pieces])


def _send(stream: BinaryIO | Any, value: object) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> Any:
    return pickle.load(stream)  # written by our own process
