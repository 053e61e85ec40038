"""Messages reach a real receiver on loopback, or it is said why not."""

import smtplib
import socket
import urllib.error

import pytest
from receivers import mail_receiver, web_receiver

from flows import notify as module
from flows.notify import notify, retried

FACTS = {"model": "digits version 7", "to decide": "acclimate review show 7"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCLIMATE_WEBHOOK", *(f"ACCLIMATE_SMTP_{part}" for part in ("HOST", "PORT", "FROM", "TO", "USER"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "WAITS_S", [0.01, 0.01])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_nobody_is_told_where_no_place_is_named() -> None:
    assert notify("s", FACTS, tell=pytest.fail) == []


def test_the_webhook_gets_subject_and_facts_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_receiver() as (address, received):
        monkeypatch.setenv("ACCLIMATE_WEBHOOK", address)
        assert notify("waits: é", FACTS, tell=pytest.fail) == ["webhook"]
    assert received == [{"subject": "waits: é", "model": "digits version 7", "to decide": "acclimate review show 7"}]


def test_a_server_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with web_receiver(500, 503) as (address, received):
        monkeypatch.setenv("ACCLIMATE_WEBHOOK", address)
        assert notify("s", FACTS, tell=told.append) == ["webhook"]
    assert len(received) == 3
    assert ["trying again in 0.01 s" in line for line in told] == [True, True]


def test_a_server_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_receiver(404) as (address, received):
        monkeypatch.setenv("ACCLIMATE_WEBHOOK", address)
        with pytest.raises(ValueError, match="the address in ACCLIMATE_WEBHOOK answered 404 Not Found; mend it"):
            notify("s", FACTS, tell=pytest.fail)
    assert len(received) == 1


def test_what_can_not_be_reached_fails_after_the_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setenv("ACCLIMATE_WEBHOOK", f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(urllib.error.URLError, match="refused"):
        notify("s", FACTS, tell=told.append)
    assert len(told) == 2


def test_only_web_addresses_are_posted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_WEBHOOK", "file:///etc/passwd")
    with pytest.raises(ValueError, match="must begin with http:// or https://"):
        notify("s", FACTS, tell=pytest.fail)


def test_only_input_and_output_are_tried_again() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        retried(fail, tell=pytest.fail)
    assert len(calls) == 1


def set_mail(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name, value in {"HOST": "127.0.0.1", "PORT": str(port), "FROM": "a@x.org", "TO": "b@y.org, c@y.org"}.items():
        monkeypatch.setenv(f"ACCLIMATE_SMTP_{name}", value)


def test_the_e_mail_arrives_at_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_receiver() as (port, received):
        set_mail(monkeypatch, port)
        assert notify("digits waits", FACTS, tell=pytest.fail) == ["e-mail"]
    text = received[0].lower()
    assert "mail from:<a@x.org>" in text
    assert "rcpt to:<b@y.org>" in text
    assert "rcpt to:<c@y.org>" in text
    assert "subject: digits waits" in text
    assert "model: digits version 7\nto decide: acclimate review show 7" in text


def test_half_a_mail_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_SMTP_HOST", "127.0.0.1")
    with pytest.raises(
        ValueError, match="e-mail needs ACCLIMATE_SMTP_PORT, ACCLIMATE_SMTP_FROM, ACCLIMATE_SMTP_TO too"
    ):
        notify("s", FACTS, tell=pytest.fail)


def test_a_password_is_not_sent_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_receiver() as (port, received):
        set_mail(monkeypatch, port)
        monkeypatch.setenv("ACCLIMATE_SMTP_USER", "ann")
        with pytest.raises(smtplib.SMTPNotSupportedError, match="STARTTLS"):
            notify("s", FACTS, tell=lambda _: None)
    assert received == []
