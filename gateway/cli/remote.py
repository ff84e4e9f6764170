"""A gateway on the other end of HTTP: requests, their refusals as sentences, and event streams that survive a cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from gateway.cli.failure import Exit, Failure

RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: dict[str, Any]


class Remote:
    """`url` is where the gateway listens, `key` what opens it, if anything does."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        headers = {"User-Agent": "mflux-gateway-cli"} | ({"X-API-Key": key} if key else {})
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(120, connect=5))

    def close(self) -> None:
        self._http.close()

    def answers(self) -> bool:
        """Whether a gateway of ours listens there."""
        try:
            return bool(self._http.get("/health/live", timeout=5).json() == {"status": "alive"})
        except (httpx.HTTPError, ValueError):
            return False

    def get(self, path: str, **query: Any) -> Any:
        """Raises: Failure with the gateway's sentence."""
        return self._asked("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Raises: as get."""
        return self._asked("POST", path, json=body or {})

    def delete(self, path: str) -> Any:
        """Raises: as get."""
        return self._asked("DELETE", path)

    def upload(self, picture: bytes) -> str:
        """The id by which a request may name the picture. Raises: as get."""
        answer = self._asked("POST", "/api/v1/uploads", files={"image": ("picture", picture)})
        return str(answer["id"])

    def picture(self, url: str, format_: str) -> bytes:
        """One finished picture as png, jpeg or webp. Raises: as get."""
        return self._sent("GET", url, params={"format": format_}).content

    def events(self, job_id: str) -> Iterator[Event]:
        """Of one job until it has ended, over cut connections and restarts of the gateway. Raises: Failure."""
        last, tries = "", 0
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                with self._http.stream(
                    "GET", f"/api/v1/jobs/{job_id}/stream?images=false", headers=headers, timeout=60
                ) as response:
                    if response.status_code == 204:
                        return
                    if response.status_code != 200:
                        response.read()
                        raise _refusal(response)
                    for sent in EventSource(response).iter_sse():
                        tries, last = 0, sent.id or last
                        if not sent.data:
                            continue
                        event = Event(sent.event, json.loads(sent.data))
                        yield event
                        if event.name in ("complete", "error", "cancelled"):
                            return
            except (httpx.TransportError, SSEError):
                pass
            if tries == len(RETRIES_S):
                raise Failure("The connection to the gateway was lost; the job goes on there.", Exit.NO_GATEWAY)
            time.sleep(RETRIES_S[tries])
            tries += 1

    def _asked(self, method: str, path: str, **sent: Any) -> Any:
        return self._sent(method, path, **sent).json()

    def _sent(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **sent)
        except httpx.TransportError:
            raise Failure(f"No gateway answers at {self.url}.", Exit.NO_GATEWAY) from None
        if response.is_success:
            return response
        raise _refusal(response)


def _refusal(response: httpx.Response) -> Failure:
    try:
        body = response.json()
        sentence = str(body["error"])
        if body.get("code") == "OOM_ERROR":
            sentence += f". {body['details']['explanation']} Or say --memory try."
    except (ValueError, KeyError, TypeError):
        sentence = f"The gateway answered {response.status_code}."
    if response.status_code == 401:
        sentence += " Put the key into MFLUX_GATEWAY_KEY."
    return Failure(sentence)
