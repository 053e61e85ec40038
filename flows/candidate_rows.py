"""A child of `acclimate extract`: one candidate's features, put where the stage extract_features finds them."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from flows.fan_child import end_with_parent, own_gpu
from tasks.core.costs import Cost, write_cost
from tasks.core.manifest import read_valid_manifest
from tasks.core.peak_memory import forget_peak, peak_gib
from tasks.core.runtime import acclimate_home, address_seed, run_stage, use_machine
from tasks.core.zoo import check_weights, load_candidate
from tasks.core.zoo_file import Candidate, allowed, read_zoo
from tasks.extract_features import images_to_see, key_of, sight_for, told, write_features
from tasks.params import Params, read_params


def main() -> None:
    end_with_parent()
    params = read_params()
    with own_gpu(acclimate_home(), params.runtime.device, tell=say) as variables:
        os.environ.update(variables)
        for line in keep_rows(sys.argv[1], params):
            say(line)


def keep_rows(name: str, params: Params) -> list[str]:
    """News for people, once every row of the candidate is in the cache. ValueError where it can't be kept there."""
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    candidates = candidates_of(params)
    (candidate,) = [each for each in candidates if each.name == name]
    check_weights(candidate)
    batch_size = params.extract_features.batch_size
    keys = frozenset(key_of(each, params, batch_size) for each in candidates)
    pretrained = load_candidate(candidate, 2, address_seed(params.seed, "unused head"))
    pretrained.model.to(device)
    sight = sight_for(candidate, images_to_see(manifest, params), params)
    forget_peak(device)
    begin = perf_counter()
    acclimate_home().mkdir(exist_ok=True)
    with TemporaryDirectory(dir=acclimate_home()) as folder:  # what is made there is as large as the rows
        done = write_features(Path(folder) / name, pretrained, sight, candidate, params, keys)
    if not done.n_known:
        write_cost(name, Cost(done.n_computed, perf_counter() - begin, peak_gib(device), device))
    if done.problem:
        raise ValueError(f"{name}: the cache of features keeps nothing new: {done.problem}")
    return told(name, done, batch_size)


def candidates_of(params: Params) -> list[Candidate]:
    """Those that the stage extract_features would take."""
    candidates, _ = allowed(read_zoo(Path(params.zoo.folder), params.zoo.candidates), params.zoo.licences)
    return candidates


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  read by the process that started this one


if __name__ == "__main__":
    run_stage(main)
