"""The Prefect event of a limit that was passed: automations start retraining by it."""

import os
import time
from typing import Any

EVENT = "acclimate.drift"
WAIT_S = 20.0  # for the server to keep it; it writes events in batches, every few seconds


def emit_drift(monitoring: dict[str, Any]) -> bool:
    """Whether a server has the event; False where PREFECT_API_URL names none. Raises where the event did not arrive.

    Prefect's client sends events beside the program and only logs what goes wrong, so the server is asked for the event.
    """
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return False
    require_server(address)
    from flows.environment import settle_prefect

    settle_prefect()
    from prefect.client.orchestration import get_client
    from prefect.events import emit_event
    from prefect.events.filters import EventFilter, EventIDFilter
    from prefect.events.worker import EventsWorker

    model, told = monitoring["model"], ("time", "n_images", "reasons")
    resource = {"prefect.resource.id": f"acclimate.model.{model['name']}", "prefect.resource.name": model["name"]}
    payload = {"model": model} | {key: monitoring[key] for key in told}
    with get_client(sync_client=True) as client:
        client.read_events(limit=1)  # a wrong password shows here
        sent = emit_event(EVENT, resource=resource, payload=payload)
        EventsWorker.instance().drain()  # else the process could end before it is sent
        end = time.monotonic() + WAIT_S
        while sent is not None and time.monotonic() < end:
            if client.read_events(EventFilter(id=EventIDFilter(id=[sent.id])), limit=1).events:
                return True
            time.sleep(0.5)
    raise ValueError(f"it was sent to {address}, but is not there after {WAIT_S:.0f} s; look at the server's log")


def require_server(address: str) -> None:
    """Nothing. ValueError within seconds where nobody answers: Prefect's own client would try for a minute."""
    import urllib.error
    import urllib.request

    try:
        if not address.startswith(("http://", "https://")):
            raise ValueError("it is no http address")
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10).close()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ValueError(f"PREFECT_API_URL {address} does not answer ({error}); start the server or unset it") from None
