"""Telling people: a webhook and e-mail, each where the environment names it."""

import json
import os
import smtplib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import TypeVar

WEBHOOK = "ACCLIMATE_WEBHOOK"
MAIL_HOST, MAIL_PORT, MAIL_FROM, MAIL_TO, MAIL_USER, MAIL_PASSWORD = (
    f"ACCLIMATE_SMTP_{name}" for name in ("HOST", "PORT", "FROM", "TO", "USER", "PASSWORD")
)
MAIL_NEEDS = (MAIL_HOST, MAIL_PORT, MAIL_FROM, MAIL_TO)
TIMEOUT_S = 30
WAITS_S = [2.0, 10.0, 60.0]
SERVER_FAILS = 500  # from this HTTP status on the server is to blame, and asking again may help
SECURE_PORT = 465

T = TypeVar("T")


def notify(subject: str, facts: Mapping[str, str], *, tell: Callable[[str], None]) -> list[str]:
    """Where the message went; nowhere if the environment names no place. ValueError or OSError where one didn't take it."""
    sent = []
    if address := os.environ.get(WEBHOOK):
        retried(lambda: post(address, {"subject": subject, **facts}), tell=tell)
        sent.append("webhook")
    if any(os.environ.get(name) for name in MAIL_NEEDS):
        retried(lambda: mail(subject, facts), tell=tell)
        sent.append("e-mail")
    return sent


def retried(action: Callable[[], T], *, tell: Callable[[str], None]) -> T:
    """What the action returns; tried again after an OSError, which is how input and output fail, never after another."""
    for wait_s in WAITS_S:
        try:
            return action()
        except OSError as error:
            tell(f"{error}; trying again in {wait_s:g} s")
            time.sleep(wait_s)
    return action()


def post(address: str, content: Mapping[str, str]) -> None:
    """Nothing. ValueError where the address is no web address or refuses the message; OSError where it can't be reached."""
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{WEBHOOK} is {address!r}; it must begin with http:// or https://")
    body = json.dumps(content, ensure_ascii=False).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < SERVER_FAILS:
            raise ValueError(f"the address in {WEBHOOK} answered {error.code} {error.reason}; mend it") from None
        raise


def mail(subject: str, facts: Mapping[str, str]) -> None:
    """Nothing. ValueError lists what the environment lacks; a password never travels without TLS."""
    if absent := [name for name in MAIL_NEEDS if not os.environ.get(name)]:
        raise ValueError(f"e-mail needs {', '.join(absent)} too; set them, or none of ACCLIMATE_SMTP_*")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, os.environ[MAIL_FROM], os.environ[MAIL_TO]
    message.set_content("\n".join(f"{name}: {value}" for name, value in facts.items()) + "\n")
    port = int(os.environ[MAIL_PORT])
    kind = smtplib.SMTP_SSL if port == SECURE_PORT else smtplib.SMTP
    with kind(os.environ[MAIL_HOST], port, timeout=TIMEOUT_S) as connection:
        if user := os.environ.get(MAIL_USER):
            if port != SECURE_PORT:
                connection.starttls()
            connection.login(user, os.environ.get(MAIL_PASSWORD, ""))
        connection.send_message(message)
