"""Traffic of all protocols on the gateways of a fleet, and the account of what they acknowledged."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from PIL import Image

from tests.support.live import live

PROMPTS = tuple(f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("circle", "square", "star"))
EDITS = ("a red edge", "a blue edge")
"""Prompts of drawings that begin with an image."""
SEEDS = 4
SIDE_PX = 64
PAUSE_S = 0.25


def pixels(data: bytes) -> str:
    """SHA-256 of an image's pixels."""
    with Image.open(io.BytesIO(data)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


@cache
def undisturbed() -> Mapping[tuple[str, int], str]:
    """The same of every image of the traffic, by prompt and seed: drawn by one gateway to which nothing happens."""
    known: dict[tuple[str, int], str] = {}
    calm = {"generation": {"previews": False}}
    with (
        tempfile.TemporaryDirectory() as folder,
        live(Path(folder), config=calm) as one,
        httpx.Client(base_url=one.url, timeout=60) as http,
    ):
        for prompt in (*PROMPTS, *EDITS):
            drawing = body(prompt, 0, num_images=SEEDS + 1)
            job_id = http.post("/api/v1/generate", json=drawing).raise_for_status().json()["job_id"]
            with http.stream("GET", f"/api/v1/jobs/{job_id}/stream?images=false") as events:
                events.read()
            images = http.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()["result"]["images"]
            known |= {(prompt, seed): pixels(base64.b64decode(image)) for seed, image in enumerate(images)}
    return known


class Account:
    """What clients were told, and what they got. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.jobs: dict[str, tuple[str, int, int]] = {}
        """Acknowledged jobs: prompt, first seed and number of images."""
        self.cancelled: set[str] = set()
        """Those of them that a client stopped."""
        self.keys: dict[str, str] = {}
        """The job of each idempotency key."""
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    def count(self, what: str) -> None:
        with self._lock:
            self.answers[what] += 1

    def acknowledge(self, job_id: str, prompt: str, seed: int, images: int = 1, key: str | None = None) -> None:
        with self._lock:
            self.jobs[job_id] = prompt, seed, images
            if key is not None and self.keys.setdefault(key, job_id) != job_id:
                self.wrong.append(f"key {key} has jobs {self.keys[key]} and {job_id}")

    def compare(self, what: str, data: bytes, prompt: str, seed: int) -> None:
        """Compare an image that a client got with the undisturbed one."""
        if pixels(data) != undisturbed()[prompt, seed]:
            with self._lock:
                self.wrong.append(f"{what}: other pixels of {prompt!r}, seed {seed}")


class Traffic:
    """Clients on threads until the context ends; each request goes to a gateway at random."""

    def __init__(
        self, urls: Sequence[str], *, seed: int = 0, pause_s: float = PAUSE_S, account: Account | None = None
    ) -> None:
        undisturbed()  # before anything happens
        self.account = account or Account()
        self._urls, self._pause_s = tuple(urls), pause_s
        self._stop = threading.Event()
        clients = (self._native, self._native, self._keyed, self._sdapi, self._openai, self._mflux_server, self._stops)
        self._threads = [
            threading.Thread(target=self._repeat, args=(client, random.Random(seed * 100 + n)), daemon=True)
            for n, client in enumerate(clients)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, client: Callable[[httpx.Client, random.Random], None], chance: random.Random) -> None:
        with httpx.Client(timeout=60, headers={"X-Client-Id": f"client-{chance.randrange(10**6)}"}) as http:
            while not self._stop.is_set():
                try:
                    client(http, chance)
                except httpx.TransportError as error:
                    self.account.count(type(error).__name__)
                self._stop.wait(chance.uniform(0, 2 * self._pause_s))

    def _post(self, http: httpx.Client, chance: random.Random, path: str, **values: Any) -> httpx.Response:
        answer = http.post(f"{chance.choice(self._urls)}{path}", **values)
        self.account.count(f"{path.split('/')[1]} {answer.status_code}")
        return answer

    def _drawing(self, chance: random.Random) -> tuple[str, int]:
        return chance.choice(PROMPTS), chance.randrange(SEEDS)

    def _native(self, http: httpx.Client, chance: random.Random) -> None:
        prompt, seed = chance.choice((*PROMPTS, *EDITS)), chance.randrange(SEEDS)
        images = chance.choice((1, 1, 1, 2))
        answer = self._post(http, chance, "/api/v1/generate", json=body(prompt, seed, num_images=images))
        if answer.status_code == 200:
            self.account.acknowledge(answer.json()["job_id"], prompt, seed, images)

    def _keyed(self, http: httpx.Client, chance: random.Random) -> None:
        """Submit with a key until it is acknowledged, at whichever gateway answers."""
        prompt, seed = self._drawing(chance)
        key = secrets.token_hex(8)
        while not self._stop.is_set():
            try:
                answer = self._post(
                    http, chance, "/api/v1/generate", json=body(prompt, seed), headers={"Idempotency-Key": key}
                )
            except httpx.TransportError as error:
                self.account.count(type(error).__name__)
            else:
                if answer.status_code == 200:
                    self.account.acknowledge(answer.json()["job_id"], prompt, seed, key=key)
                    return
            self._stop.wait(0.2)

    def _sdapi(self, http: httpx.Client, chance: random.Random) -> None:
        prompt, seed = self._drawing(chance)
        answer = self._post(http, chance, "/sdapi/v1/txt2img", json=body(prompt, seed))
        if answer.status_code == 200:
            self.account.compare("sdapi", base64.b64decode(answer.json()["images"][0]), prompt, seed)

    def _openai(self, http: httpx.Client, chance: random.Random) -> None:
        prompt, seed = self._drawing(chance)
        size = f"{SIDE_PX}x{SIDE_PX}"
        values = {"prompt": prompt, "size": size, "seed": seed, "response_format": "b64_json"}
        answer = self._post(http, chance, "/v1/images/generations", json=values)
        if answer.status_code == 200:
            self.account.compare("openai", base64.b64decode(answer.json()["data"][0]["b64_json"]), prompt, seed)

    def _mflux_server(self, http: httpx.Client, chance: random.Random) -> None:
        prompt, seed = self._drawing(chance)
        answer = self._post(http, chance, "/api/generate", json={**body(prompt, seed), "format": "PNG"})
        if answer.status_code == 200:
            self.account.acknowledge(answer.json()["task_id"], prompt, seed)

    def _stops(self, http: httpx.Client, chance: random.Random) -> None:
        """Submit at one gateway and cancel at another; the job may be done by then."""
        prompt, seed = self._drawing(chance)
        answer = self._post(http, chance, "/api/v1/generate", json=body(prompt, seed, steps=20))
        if answer.status_code != 200:
            return
        job_id = answer.json()["job_id"]
        self.account.cancelled.add(job_id)
        self.account.acknowledge(job_id, prompt, seed)
        self._stop.wait(chance.uniform(0, 0.5))
        stopped = http.delete(f"{chance.choice(self._urls)}/api/v1/jobs/{job_id}")
        self.account.count(f"cancel {stopped.status_code}")


def _small_image() -> str:
    """An image to draw on, as base64."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX)).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def body(prompt: str, seed: int, steps: int = 2, **more: Any) -> dict[str, Any]:
    """The fields of a drawing; one of `EDITS` begins with an image."""
    if prompt in EDITS:
        more = {"init_images": [_small_image()], **more}
    return {"prompt": prompt, "seed": seed, "width": SIDE_PX, "height": SIDE_PX, "steps": steps, **more}
