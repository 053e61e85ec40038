"""A child's output on our own terminal, progress bars included, while its last lines are kept."""

import fcntl
import os
import re
import sys
import termios

from flows.dvc_process import dvc_process

KEPT_BYTES = 20_000
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def run_dvc_here(*arguments: str) -> tuple[int, list[str]]:
    """Exit code of `dvc …` and the last lines of its stderr; both streams are shown as they come."""
    read_end, write_end = _terminal_twin() if os.isatty(sys.stderr.fileno()) else os.pipe()
    try:
        with dvc_process(*arguments, stdout=None, stderr=write_end) as process:
            os.close(write_end)
            tail = b""
            while chunk := _read(read_end):
                os.write(sys.stderr.fileno(), chunk)
                tail = (tail + chunk)[-KEPT_BYTES:]
            return process.wait(), COLOUR.sub("", tail.decode(errors="replace")).splitlines()
    finally:
        os.close(read_end)


def _terminal_twin() -> tuple[int, int]:
    """A pseudo terminal of our terminal's size: what is written to its second end is read from its first."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, b"\0" * 8))
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST  # our own terminal translates line ends; twice is once too often
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    return ours, theirs


def _read(read_end: int) -> bytes:
    try:
        return os.read(read_end, 4096)
    except OSError:  # how Linux reports that the last writer has closed a pseudo terminal
        return b""
