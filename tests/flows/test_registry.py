"""The registry: what is registered is found, compared and kept with the lock it came from."""

import multiprocessing
import shutil
from pathlib import Path

import pytest
import typer
from made_registry import NAME, made_bundle, registered
from typer.testing import CliRunner

from flows.lineage import path_md5, read_lock
from flows.registry import differences, find, move_alias, registered_bundle, replace_damaged, sync, versions
from flows.registry_cli import add_commands, moment_of
from tasks.core.files import file_sha256
from tasks.register_model import kept_lock, sync_registry

pytest_plugins = ("registry_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # its own use of SQLAlchemy
LOCK = """\
stages:
  build_manifest:
    cmd: x
    params: {{params.yaml: {{seed: {seed}, build_manifest: {{root: images}}}}}}
    outs: [{{path: data/manifest.csv, md5: {manifest}}}]
  register_model:
    cmd: x
    outs: [{{path: data/bundle, md5: {bundle}}}]
"""


def test_a_version_is_found_by_number_alias_and_candidate(home: Path, tmp_path: Path) -> None:
    assert versions(NAME) == []
    first, second = registered(tmp_path, "aa"), registered(tmp_path, "bbb")
    assert [each.number for each in versions(NAME)] == ["1", "2"]
    assert [each.aliases for each in versions(NAME)] == [(), ("challenger",)]
    for said in ("2", "challenger", second.candidate, second.candidate[:8]):
        assert find(NAME, said).candidate == second.candidate
    assert find(NAME, "1").candidate == first.candidate
    assert registered_bundle(NAME, "1") == home / "bundles" / first.candidate
    for said in ("3", "champion", first.candidate[:7], "f" * 64):
        with pytest.raises(ValueError, match=r"has the number, alias or candidate id .*; versions are 1, 2; see"):
            find(NAME, said)
    with pytest.raises(ValueError, match="versions are none: `acclimate run` registers its model"):
        find("letters", "1")


def test_registering_twice_makes_one_version_and_moves_the_challenger(home: Path, tmp_path: Path) -> None:
    first = made_bundle(tmp_path / "a", "aa")
    sync_registry(first, NAME)
    registered(tmp_path, "bbb")
    assert "already registered as digits version 1; it is the challenger" in sync_registry(first, NAME)
    assert [each.aliases for each in versions(NAME)] == [("challenger",), ()]


def test_a_champion_is_not_called_challenger(home: Path, tmp_path: Path) -> None:
    bundle = made_bundle(tmp_path / "a", "aa")
    assert sync(bundle, NAME).endswith("registered as digits version 1, challenger, audit pass")
    move_alias(find(NAME, "1"), "champion")
    candidate = find(NAME, "1").candidate
    assert sync(bundle, NAME) == f"candidate {candidate[:12]} is registered as digits version 1; it is the champion"


def test_a_damaged_bundle_is_told_with_the_command_that_mends_it_and_that_command_does(
    home: Path, tmp_path: Path
) -> None:
    bundle = made_bundle(tmp_path / "a", "aa")
    sync(bundle, NAME)
    folder = find(NAME, "1").folder
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "model.safetensors").write_text("ab")
    with pytest.raises(
        ValueError, match=r"register it again \(`acclimate registry sync` does so where data/bundle or data/given"
    ):
        find(NAME, "1").checked_folder()
    assert sync(bundle, NAME).endswith(f"; the damaged {folder} was replaced by {bundle}")
    (folder / "manifest.json").write_text("{}")
    shutil.copytree(bundle, "data/given/champion", dirs_exist_ok=True)
    app = typer.Typer()
    add_commands(app)
    done = CliRunner().invoke(app, ["registry", "sync"])
    assert done.stdout.startswith(f"the damaged {folder} was replaced by data/given/champion\n"), done.output
    assert {path.name: path.read_bytes() for path in find(NAME, "1").checked_folder().iterdir()} == whole


def test_a_damaged_bundle_is_not_replaced_by_another_damaged_one(home: Path, tmp_path: Path) -> None:
    bundle = made_bundle(tmp_path / "a", "aa")
    sync(bundle, NAME)
    for place in (bundle, find(NAME, "1").folder):
        (place / "model.safetensors").write_text("ab")
    with pytest.raises(ValueError, match=r"model\.safetensors has sha256"):
        replace_damaged(bundle)


def test_tags_say_who_what_and_where(home: Path, tmp_path: Path) -> None:
    tags = registered(tmp_path, "aa", verdict="fail").tags
    assert (tags["verdict"], tags["decision"], tags["adopted"], tags["started_by"]) == ("fail", "adopt", "shot", "ann")
    assert tags["weights_sha256"] == file_sha256(tmp_path / "aa/parts/model.safetensors")
    assert {"cpu", "python", "torch", "git_commit", "git_tree", "dvc_lock_sha256"} <= set(tags)


@pytest.mark.parametrize("name", ["model.safetensors", "report.html", "manifest.json"])
def test_one_flipped_byte_is_no_bundle(home: Path, tmp_path: Path, name: str) -> None:
    folder = registered(tmp_path, "aa").folder
    content = bytearray((folder / name).read_bytes())
    content[0] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} has sha256|has a manifest of sha256"):
        registered_bundle(NAME, "1")


def test_a_bundle_that_is_not_here_is_told(home: Path, tmp_path: Path) -> None:
    folder = registered(tmp_path, "aa").folder
    folder.rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"digits version 1 is registered, but its bundle .* is missing here"):
        registered_bundle(NAME, "1")


def test_the_lock_of_the_run_that_ended_with_the_bundle_is_kept_and_a_later_one_is_not(
    home: Path, tmp_path: Path
) -> None:
    bundle = made_bundle(tmp_path / "a", "aa")
    unfinished = LOCK.format(seed=1, manifest="m1", bundle="of an earlier run")
    whole = LOCK.format(seed=1, manifest="m1", bundle=path_md5(bundle))
    later = LOCK.format(seed=2, manifest="m2", bundle=path_md5(bundle))
    foreign = LOCK.format(seed=3, manifest="m3", bundle="of a later run")
    for text, kept in [
        (unfinished, unfinished),
        (foreign, unfinished),
        (whole, whole),
        (later, whole),
        (foreign, whole),
    ]:
        Path("dvc.lock").write_text(text)
        sync(bundle, NAME)
        version = find(NAME, "1")
        assert kept_lock(version.candidate).read_text() == kept
        assert version.tags["dvc_lock_sha256"] == file_sha256(kept_lock(version.candidate))
    assert version.tags["data_md5"] == "m1"
    assert len(version.tags["params_sha256"]) == 64


def test_a_bundle_without_a_run_has_no_lock_and_that_is_said(home: Path, tmp_path: Path) -> None:
    sync(made_bundle(tmp_path / "a", "aa"), NAME)
    version = find(NAME, "1")
    assert version.tags["dvc_lock_sha256"] == "none yet"
    with pytest.raises(FileNotFoundError, match=r"no dvc.lock was kept with this model"):
        read_lock(kept_lock(version.candidate))


def test_what_differs_is_told_and_what_is_the_same_is_not(home: Path, tmp_path: Path) -> None:
    for seed, weights in [(1, "aa"), (2, "bbb")]:
        bundle = made_bundle(tmp_path / weights, weights, verdict="pass")
        Path("dvc.lock").write_text(LOCK.format(seed=seed, manifest="m1", bundle=path_md5(bundle)))
        sync(bundle, NAME)
    found = {what: (a, b) for what, a, b in differences(find(NAME, "1"), find(NAME, "2"))}
    assert found["accuracy"] == ("0.2", "0.3")
    assert found["metrics adopted.accuracy"] == ("0.2", "0.3")
    assert found["params seed"] == ("1", "2")
    assert "sha256 of model.safetensors" in found
    assert not {"verdict", "decision", "params build_manifest.root", "sha256 of verdict.json", "tag data_md5"} & set(
        found
    )
    assert differences(find(NAME, "1"), find(NAME, "1")) == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-11-21", "2026-11-21T23:59:59.999999+00:00"),
        ("2026-11-21T14:30", "2026-11-21T14:30:00+00:00"),
        ("2026-11-21T14:30+02:00", "2026-11-21T14:30:00+02:00"),
    ],
)
def test_a_day_means_its_end_and_utc(said: str, meant: str) -> None:
    assert moment_of(said).isoformat() == meant


def test_what_is_no_date_is_told() -> None:
    with pytest.raises(ValueError, match="'yesterday' is no date; write it as 2026-11-21"):
        moment_of("yesterday")


def register_in_process(bundle: Path) -> None:
    sync_registry(bundle, NAME)


@pytest.mark.slow
def test_two_first_uses_at_once_are_both_registered(home: Path, tmp_path: Path) -> None:
    (home / "mlflow.db").unlink()
    bundles = [made_bundle(tmp_path / weights, weights) for weights in ("aa", "bbb")]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=register_in_process, args=(bundle,)) for bundle in bundles]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    assert [each.number for each in versions(NAME)] == ["1", "2"]


def test_the_commands_show_versions_and_name_what_is_unknown(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa", verdict="inconclusive")
    app = typer.Typer()
    add_commands(app)
    listed = CliRunner().invoke(app, ["registry", "list"])
    assert listed.exit_code == 0, listed.output
    for told in (version.candidate[:12], "challenger", "inconclusive", "pending"):
        assert told in listed.stdout
    shown = CliRunner().invoke(app, ["registry", "show", "challenger"])
    assert "started_by: ann" in shown.stdout
    assert f"bundle: {home / 'bundles' / version.candidate}" in shown.stdout
    for arguments in (["show", "7"], ["diff", "1", "7"], ["at", "2026-11-21"], ["rollback", "--reason", "bad"]):
        done = CliRunner().invoke(app, ["registry", *arguments])
        assert done.exit_code == 1
        assert done.stderr.startswith("error: ")
