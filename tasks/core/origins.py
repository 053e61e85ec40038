"""Where weights come from: torchvision's and timm's own descriptions, a hub or an address, a state dict on disk.

No pickle is executed: state dicts are read with `weights_only=True`, which refuses everything but tensors and plain
containers.
"""

import pickle
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import torch
from torch import Tensor

from tasks.core.files import file_sha256
from tasks.core.model import import_timm, read_tensors

SILENCE_S = 20.0  # a server that says nothing for so long is not reachable
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # torch's hub writes the first digits of the sha256 into names
NOT_STATED = "not stated"


def described(architecture: str, weights: str | None) -> dict[str, Any]:
    """Preprocessing, classes, licence, published accuracy and address, in the words of zoo.json, from the library's metadata."""
    if architecture.startswith("torchvision."):
        return _described_by_torchvision(architecture, weights)
    if architecture.startswith("timm."):
        return _described_by_timm(architecture)
    raise ValueError(f"{architecture!r} comes with no weights; only torchvision.<name> and timm.<name> do")


def _described_by_torchvision(architecture: str, weights: str | None) -> dict[str, Any]:
    from torchvision import models

    name = architecture.removeprefix("torchvision.")
    if name not in models.list_models(module=models):
        raise ValueError(f"architecture {architecture!r} is no classifier of the installed torchvision; take another")
    known = {str(item): item for item in models.get_model_weights(name)}
    if weights not in known:
        raise ValueError(f"{architecture} has no weights {weights!r}; it has {', '.join(known)}")
    meta, transform = known[weights].meta, known[weights].transforms()
    crop_px, short_px = int(transform.crop_size[0]), int(transform.resize_size[0])
    if not meta["categories"]:
        raise ValueError(f"{weights} come without a classifier, which torchvision's network needs; take others")
    n_classes = len(meta["categories"])
    data, metrics = next(iter(meta["_metrics"].items()))
    return {
        "arch": architecture,
        "weights": weights,
        "url": known[weights].url,
        "num_classes": n_classes,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "input_size": [3, crop_px, crop_px],
        "crop_pct": round(min(crop_px / short_px, 1.0), 6),
        "interpolation": transform.interpolation.value,
        "source_domain": f"the {n_classes} classes of {data}; see pretraining",
        "license": meta.get("license", NOT_STATED),
        "pretraining": {"data": " ".join(meta["_docs"].split()), **_if_url(meta.get("recipe"))},
        "published_accuracy": round(metrics["acc@1"] / 100, 6),
    }


def _described_by_timm(architecture: str) -> dict[str, Any]:
    timm = import_timm(architecture)
    name = architecture.removeprefix("timm.")
    found = timm.get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model(name) else None
    config = found.to_dict() if found is not None else {}
    address = config.get("hf_hub_id") or config.get("url")
    if not address:
        raise ValueError(f"the installed timm {timm.__version__} knows no pretrained weights of {name!r}; take another")
    return {
        "arch": architecture,
        "num_classes": config["num_classes"],
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "input_size": list(config["input_size"]),
        "crop_pct": config["crop_pct"],
        "interpolation": config["interpolation"],
        "source_domain": f"as described by timm: {config.get('tag') or address}",
        "license": config.get("license") or NOT_STATED,
        "origin": str(address),
    }


def _if_url(address: object) -> dict[str, str]:
    return {"url": address} if isinstance(address, str) and address.startswith("http") else {}


def tensors_of(folder: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of an entry, from its state dict in the zoo's folder, its address, or timm's own loader."""
    if "state_dict" in entry:
        path = folder / entry["state_dict"]
        if not path.is_file():
            raise ValueError(
                f"model {entry['name']!r}: the state dict {path} is missing; put it there or mend state_dict"
            )
        return read_state_dict(path)
    if "url" in entry:
        return read_state_dict(fetched(entry["url"], folder / f"{entry['name']}.safetensors"))
    return _by_timm(entry["arch"])


def fetched(url: str, wanted: Path) -> Path:
    """The file behind the address, in torch's own cache; checked against the hash in its name, if there is one.

    ValueError says what was not reachable, and that `wanted` may be brought by hand.
    """
    file_name = Path(urlsplit(url).path).name
    if not re.fullmatch(r"\w[\w.+\-]*", file_name):
        raise ValueError(f"the address {url} does not end in a plain file name; mend url in zoo.json")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    hash_found = HASH_IN_NAME.search(file_name)
    prefix = hash_found.group(1) if hash_found else ""
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _patience(SILENCE_S):
                torch.hub.download_url_to_file(url, str(cached), prefix or None, progress=False)
        except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; RuntimeError: the hash is another one
            told = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, HTTPError):
                error.close()
            raise ValueError(
                f"{url} could not be fetched ({told}); bring the file by another way: as {cached}, and pull again, or "
                f"converted as {wanted} with its sha256 in zoo.json"
                + (f"; its sha256 begins with {prefix}" if prefix else "")
            ) from None
    if not file_sha256(cached).startswith(prefix):
        raise ValueError(
            f"{cached} has sha256 {file_sha256(cached)}, its name says {prefix}…; remove it and pull again"
        )
    return cached


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Sockets give up after so many seconds of silence: torch's loader waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Name → tensor, from safetensors or from a file of `torch.save`. ValueError where it holds anything else."""
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells of old formats; they are read all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors: it was not read, because reading it could run code; save the state dict "
            "alone, with torch.save(net.state_dict(), …)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a whole file of torch.save ({type(error).__name__}: {told})") from None
    if isinstance(content, dict):
        for key in ("state_dict", "model"):
            content = content[key] if isinstance(content.get(key), dict) else content
    if not isinstance(content, dict) or not content or not all(_is_weight(*item) for item in content.items()):
        raise ValueError(f"{path} is not a state dict: wanted is name → tensor, alone or under 'state_dict' or 'model'")
    return {name: tensor.contiguous() for name, tensor in content.items()}


def _is_weight(name: object, tensor: object) -> bool:
    return (
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_meta
    )


def _by_timm(architecture: str) -> dict[str, Tensor]:
    """Through timm's own loader. ValueError where it finds no way."""
    timm = import_timm(architecture)
    try:
        with _patience(SILENCE_S):
            net = timm.create_model(architecture.removeprefix("timm."), pretrained=True)
    except Exception as error:  # timm lets through whatever its hubs raise
        told = " ".join(str(error).split())[:300]
        raise ValueError(
            f"timm could not fetch the weights of {architecture} ({type(error).__name__}: {told}); bring them by another "
            "way and name the file under state_dict"
        ) from None
    return dict(net.state_dict())
