"""deploy/: what compose would start listens on this machine alone, is pinned, checked for health, and holds no secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
COMPOSE: dict[str, Any] = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KEYS = {
    "image", "build", "command", "entrypoint", "environment", "ports", "volumes", "depends_on", "healthcheck", "restart",
    "init", "security_opt",
}  # fmt: skip


def problems(name: str, service: dict[str, Any], services: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with one service."""
    found = [f"{name}: {key} is not a key that is used here" for key in service.keys() - KEYS]
    tag = service.get("image", "").partition(":")[2]
    if not tag or tag == "latest":
        found.append(f"{name}: no pinned image")
    if not service.get("healthcheck", {}).get("test"):
        found.append(f"{name}: no healthcheck")
    found += [f"{name}: {port} is open" for port in service.get("ports", []) if not str(port).startswith("127.0.0.1:")]
    found += [
        f"{name}: {key} is written down"
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY", key) and not str(value).startswith("${")
    ]
    found += [f"{name}: waits for {other}" for other in service.get("depends_on", {}) if other not in services]
    return found


def test_the_servers_are_there() -> None:
    assert set(SERVICES) == {"postgres", "prefect", "mlflow", "minio", "worker"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_pinned_healthy_and_local(name: str) -> None:
    assert problems(name, SERVICES[name], SERVICES) == []


def test_a_bad_service_is_seen() -> None:
    bad = {
        "image": "x",
        "ports": ["80:80"],
        "environment": {"A_PASSWORD": "p"},
        "depends_on": {"y": {}},
        "privileged": 1,
    }
    assert problems("x", bad, {}) == [
        "x: privileged is not a key that is used here", "x: no pinned image", "x: no healthcheck", "x: 80:80 is open",
        "x: A_PASSWORD is written down", "x: waits for y",
    ]  # fmt: skip


def test_every_volume_and_file_is_there() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    assert {name for name in mounts if not name.startswith(".")} == set(COMPOSE["volumes"])
    assert all((DEPLOY / name).is_file() for name in mounts if name.startswith("."))
    for service in SERVICES.values():
        if build := service.get("build"):
            folder = DEPLOY / build["context"]
            dockerfile = folder / build["dockerfile"]
            copied = re.findall(r"^COPY (.+) \S+$", dockerfile.read_text(), re.MULTILINE)
            assert copied
            assert all((folder / name).exists() for names in copied for name in names.split())


def test_every_variable_has_an_example_and_every_example_a_use() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = set(re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert used == given
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()


def placeholders(value: Any) -> set[str]:
    return set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(value)))


@pytest.mark.parametrize("name", ["docker_pool.json", "kubernetes_pool.json"])
def test_a_pools_template_uses_just_the_variables_it_declares(name: str) -> None:
    template = json.loads((DEPLOY / name).read_text())
    assert set(template) == {"job_configuration", "variables"}
    assert placeholders(template["job_configuration"]) == set(template["variables"]["properties"])
    assert template["variables"]["properties"]["image"]["default"] == SERVICES["worker"]["image"]
