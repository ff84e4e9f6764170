"""A remote gateway: HTTP requests, refusals as sentences, and event streams that reconnect."""

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
    """A gateway at `url`; `key` is its access key, if it needs one."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        headers = {"User-Agent": "mflux-gateway-cli"} | ({"X-API-Key": key} if key else {})
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(120, connect=5))

    def close(self) -> None:
        self._http.close()

    def answers(self) -> bool:
        """Whether a gateway answers at the URL, even if it is still starting."""
        try:
            return bool(self._http.get("/health/live", timeout=5).json() == {"status": "alive"})
        except (httpx.HTTPError, ValueError):
            return False

    def has_started(self) -> bool:
        """Whether the gateway answers requests, which wait for its start; they get a 503 if that fails."""
        try:
            return self._http.get("/api/v1/health", timeout=5).status_code != 503
        except httpx.HTTPError:
            return False

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET. Raises: Failure with the gateway's message."""
        return self._json("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a POST. Raises: like get."""
        return self._json("POST", path, json=body or {})

    def delete(self, path: str) -> Any:
        """The JSON of a DELETE. Raises: like get."""
        return self._json("DELETE", path)

    def upload(self, image: bytes) -> str:
        """The id of the uploaded image, for further requests. Raises: like get."""
        answer = self._json("POST", "/api/v1/uploads", files={"image": ("picture", image)})
        return str(answer["id"])

    def image(self, url: str, format_: str) -> bytes:
        """One finished image as png, jpeg or webp. Raises: like get."""
        return self._send("GET", url, params={"format": format_}, follow_redirects=True).content

    def events(self, job_id: str) -> Iterator[Event]:
        """Events of one job until it ended, across lost connections and restarts of the gateway. Raises: Failure."""
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
                    for message in EventSource(response).iter_sse():
                        tries, last = 0, message.id or last
                        if not message.data:
                            continue
                        event = Event(message.event, json.loads(message.data))
                        yield event
                        if event.name in ("complete", "error", "cancelled"):
                            return
            except (httpx.TransportError, SSEError):
                pass
            if tries == len(RETRIES_S):
                raise Failure("The connection to the gateway was lost; the job goes on there.", Exit.NO_GATEWAY)
            time.sleep(RETRIES_S[tries])
            tries += 1

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._send(method, path, **options).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
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
            sentence += f". {body['details']['explanation']} Or use --memory try."
    except (ValueError, KeyError, TypeError):
        sentence = f"The gateway answered {response.status_code}."
    if response.status_code == 401:
        sentence += " Put the key into MFLUX_GATEWAY_KEY."
    return Failure(sentence)
