"""deploy/ by hand, as its README says: Prefect's and MLflow's servers on a real PostgreSQL, with their log-ins; one decision."""

import base64
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from made_registry import NAME, registered
from prefect_server import child_environment, free_port, process, server, serving, wait_for

from flows.registry import find
from flows.review import Statement, promote, reviews_folder
from tasks.core.reviews import APPROVE, read_review

pytest_plugins = ("registry_fixtures",)
DEPLOY = Path(__file__).parents[2] / "deploy"
WORD = "letters0and1digits"  # it stands inside addresses


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest where there are several; Debian keeps them off the PATH."""
    found = [Path(initdb).resolve().parent] if (initdb := shutil.which("initdb")) else []
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
    )
    return next(
        (folder for folder in found if all((folder / name).exists() for name in ("initdb", "pg_ctl", "psql"))), None
    )


def missing() -> str:
    """What is not installed here of what the set-up needs; empty where it can be tried."""
    absent = [] if programs() else ["PostgreSQL (Debian's package postgresql)"]
    absent += [package for module, package in DRIVERS.items() if find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


DRIVERS = {"asyncpg": "asyncpg", "psycopg2": "psycopg2-binary", "flask_wtf": "mlflow[auth]"}
pytestmark = [
    pytest.mark.flows, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]  # fmt: skip


@dataclass(frozen=True)
class Server:
    """An address that wants user and password."""

    address: str
    user: str = "admin"

    def ask(self, path: str, body: dict[str, Any] | None = None, *, word: str = WORD) -> Any:
        """The answer; the status where it is a refusal. A POST where there is a body."""
        login = base64.b64encode(f"{self.user}:{word}".encode()).decode()
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.address + path, content, headers), timeout=30
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None  # it isn't up yet


@contextmanager
def mlflow_server(postgres_port: int, folder: Path) -> Iterator[Server]:
    """MLflow's server, started like mlflow_start.sh does; not waited for."""
    port = free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = admin\n"
        f"admin_password = {WORD}\n"
    )
    environment = child_environment() | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": WORD,
        "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true",
    }  # fmt: skip
    command = [
        "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"postgresql+psycopg2://mlflow:{WORD}@127.0.0.1:{postgres_port}/mlflow",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with process(command, folder, environment, folder / "mlflow.log"):
        yield Server(f"http://127.0.0.1:{port}")


def rows(postgres_port: int, database: str, query: str, user: str = "") -> list[Any]:
    """What the database itself holds."""
    import psycopg2

    where = {"host": "127.0.0.1", "port": postgres_port, "dbname": database, "user": user or database, "password": WORD}
    with closing(psycopg2.connect(**where)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


@contextmanager
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL on loopback, with the users and databases of postgres_init.sh; gone with the block.

    It refuses to run as root: root starts it as the user that Debian's package makes, or as nobody.
    """
    bin_folder, port = programs(), free_port()
    assert bin_folder
    with tempfile.TemporaryDirectory(prefix="postgres-") as temporary:
        folder, owner = Path(temporary), None
        (folder / "word").write_text(WORD)
        if os.geteuid() == 0:
            owner = "postgres" if any(user.pw_name == "postgres" for user in pwd.getpwall()) else "nobody"
            for path in (folder, folder / "word"):
                shutil.chown(path, owner)

        def run(name: str, *arguments: str) -> None:
            subprocess.run([str(bin_folder / name), "-D", str(folder / "data"), *arguments], check=True, cwd="/", user=owner,
                           stdout=subprocess.DEVNULL)  # fmt: skip

        run(
            "initdb",
            "-U",
            "postgres",
            "--auth-host=scram-sha-256",
            "--auth-local=scram-sha-256",
            f"--pwfile={folder / 'word'}",
        )
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            words = dict.fromkeys(("PGPASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD"), WORD)
            places = {
                "PGHOST": "127.0.0.1",
                "PGPORT": str(port),
                "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            }
            environment = os.environ | words | places
            subprocess.run(
                ["sh", str(DEPLOY / "postgres_init.sh")], env=environment, check=True, stdout=subprocess.DEVNULL
            )
            yield port
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


def test_a_model_is_registered_decided_and_promoted_on_postgres(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as running:
        db, port = running.enter_context(postgres()), free_port()
        mlflow, prefect = running.enter_context(mlflow_server(db, tmp_path)), Server(f"http://127.0.0.1:{port}/api")
        words = {
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": WORD,
            "PREFECT_API_AUTH_STRING": f"admin:{WORD}",
        }
        places = {
            "MLFLOW_TRACKING_URI": mlflow.address,
            "PREFECT_API_URL": prefect.address,
            "PREFECT_HOME": str(tmp_path / "prefect"),
        }
        for name, value in (words | places).items():
            monkeypatch.setenv(name, value)
        environment = child_environment()
        base = {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://prefect:{WORD}@127.0.0.1:{db}/prefect",
            "PREFECT_SERVER_API_AUTH_STRING": f"admin:{WORD}",
        }
        running.enter_context(server(Path.cwd(), environment | base, port))
        wait_for(lambda: isinstance(mlflow.ask("/api/2.0/mlflow/registered-models/search"), dict), "MLflow's server")
        assert mlflow.ask("/api/2.0/mlflow/registered-models/search", word="another") == 401
        assert prefect.ask("/deployments/filter", {}, word="another") == 401

        version = registered(tmp_path, "aa")
        assert rows(db, "mlflow", "SELECT name, version FROM model_versions") == [(NAME, 1)]
        running.enter_context(serving(Path.cwd(), environment))
        path = "/deployments/name/review/acclimate"
        review = wait_for(lambda: isinstance(found := prefect.ask(path), dict) and found, "the deployment")
        run = prefect.ask(
            f"/deployments/{review['id']}/create_flow_run", {"parameters": {"candidate": version.candidate}}
        )["id"]
        wait_for(lambda: prefect.ask(f"/flow_runs/{run}")["state"]["type"] == "PAUSED", "the form")
        said = {"decision": "approve", "reviewer": "bob", "reason": "better on every group"}
        assert prefect.ask(f"/flow_runs/{run}/resume", {"run_input": said})["status"] == "ACCEPT"
        wait_for(lambda: prefect.ask(f"/flow_runs/{run}")["state"]["type"] == "COMPLETED", "the decision")
        query = f"SELECT state_type::text FROM flow_run WHERE id = '{run}'"
        assert rows(db, "prefect", query) == [("COMPLETED",)]
        assert read_review(reviews_folder(), version.candidate).decision == APPROVE
        promote(version, Statement("ann", "", "approved"), time="2026-11-22T10:00:00+00:00", tell=lambda _: None)
        assert find(NAME, "champion").candidate == version.candidate
        assert rows(db, "mlflow", "SELECT alias, version FROM registered_model_aliases") == [("champion", 1)]
        with pytest.raises(
            Exception, match="permission denied for database"
        ):  # psycopg2's, which may be absent at import
            rows(db, "mlflow", "SELECT 1", user="prefect")
