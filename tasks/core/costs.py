"""What features of a candidate cost here: seconds and memory. Measured, so never part of a result: kept outside DVC's outs."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.files import read_json, write_json
from tasks.core.runtime import acclimate_home


@dataclass(frozen=True)
class Cost:
    """Of one pass over `n_rows` images or views; `memory_gib` is the most that the process (or GPU) held meanwhile."""

    n_rows: int
    seconds: float
    memory_gib: float
    device: str

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s and {self.memory_gib:.2f} GiB for {self.n_rows} images and augmented views on {self.device}"


def write_cost(candidate: str, cost: Cost) -> None:
    path = _path(candidate)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(cost))


def read_cost(candidate: str) -> Cost | None:
    """None where the candidate's features were never computed here."""
    path = _path(candidate)
    return Cost(**read_json(path, made_by="extract_features")) if path.exists() else None


def _path(candidate: str) -> Path:
    return acclimate_home() / "costs" / f"{candidate}.json"
