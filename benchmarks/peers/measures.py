"""What the bench measures: each measure takes the contenders in turn, round by round, and yields samples."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers.bench import LARGE_PX, SEED, SEEN, SMALL_PX, Bench
from benchmarks.peers.order import Contender, Order
from benchmarks.peers.servers import Server
from benchmarks.peers.table import Sample

CLIENTS = 4
LONG_STEPS = 8
DRAWING_S = 2.5
"""How long an image of many steps is drawn until nobody wants it any more."""
HEALTH_EVERY_S = 0.015
WATCH_S, WATCH_EVERY_S = 30.0, 0.1
QUIET_S = 0.6
"""A server has stopped drawing when it was quiet for so long."""
BUSY_SHARE = 0.3
"""Of a core, from which on a server is not quiet."""


def draw_s(contender: Contender, order: Order) -> float:
    """Seconds until the images are there."""
    began = time.perf_counter()
    contender.draw(order)
    return time.perf_counter() - began


def starts(bench: Bench, count: int) -> Iterator[Sample]:
    """From the start of the process until it takes requests, and until the first image is there."""
    for number, contenders in bench.rounds(count):
        for contender in contenders:
            bench.stop(contender)
            with bench.turn(contender, warm=False):
                began = time.perf_counter()
                ready_s = contender.start()
                contender.draw(Order(SEEN[0], (SEED,), LARGE_PX))
                yield Sample("ready", contender.name, number, ready_s)
                yield Sample("first image", contender.name, number, time.perf_counter() - began)
                if number < count - 1:
                    bench.stop(contender)


def singles(bench: Bench, count: int) -> Iterator[Sample]:
    """One client: a new prompt and one seen before, at both sizes."""
    for number, contenders in bench.rounds(count):
        prompts = {size_px: bench.new_prompt() for size_px in (LARGE_PX, SMALL_PX)}
        for contender in contenders:
            with bench.turn(contender):
                for size_px in contender.sizes_px:
                    for kind, prompt in (("new", prompts[size_px]), ("seen", SEEN[number % len(SEEN)])):
                        took_s = draw_s(contender, Order(prompt, (SEED + 1 + number,), size_px))
                        yield Sample(f"{kind} {size_px}", contender.name, number, took_s)


def batches(bench: Bench, count: int) -> Iterator[Sample]:
    """Four images of one new prompt."""
    for number, contenders in bench.rounds(count):
        order = Order(bench.new_prompt(), tuple(range(SEED, SEED + 4)), LARGE_PX)
        for contender in contenders:
            with bench.turn(contender):
                yield Sample("four images", contender.name, number, draw_s(contender, order))


def crowd(bench: Bench, each: int) -> list[Order]:
    """What four clients draw, so many each: of the prompts at one time half are new, and each client has both kinds."""
    orders: list[Order] = []
    for turn in range(each):
        for client in range(CLIENTS):
            prompt = bench.new_prompt() if (turn + client) % 2 == 0 else SEEN[client // 2]
            orders.append(Order(prompt, (SEED + len(orders),), LARGE_PX))
    return orders


def crowds(bench: Bench, count: int, each: int) -> Iterator[Sample]:
    """Images a minute of four clients at once, each of which draws so many."""
    for number, contenders in bench.rounds(count):
        orders = crowd(bench, each)
        for contender in contenders:
            with bench.turn(contender):
                began = time.perf_counter()
                contender.draw_all(orders, CLIENTS)
                took_s = time.perf_counter() - began
                yield Sample("four clients", contender.name, number, 60 * len(orders) / took_s)


def memory(bench: Bench, count: int) -> Iterator[Sample]:
    """Of the servers, after all that they have drawn until now."""
    for number, contenders in bench.rounds(count, bare=False):
        for contender in contenders:
            assert isinstance(contender, Server)
            with bench.turn(contender):
                yield Sample("memory", contender.name, number, contender.memory_mb())


def ends(bench: Bench, count: int) -> Iterator[Sample]:
    """A small GET's time while an image of many steps is drawn, and how long that goes on when nobody wants it."""
    for number, contenders in bench.rounds(count, bare=False):
        for contender in contenders:
            assert isinstance(contender, Server)
            with bench.turn(contender):
                times_ms = []
                for end, action in (("hang-up", contender.hang_up), ("cancel", contender.cancel)):
                    if end in contender.program.ends:
                        order = Order(bench.new_prompt(), (SEED,), LARGE_PX, LONG_STEPS)
                        times_ms += health_ms(contender, action, order)
                        yield Sample(end, contender.name, number, busy_s(contender.processor_s))
                yield Sample("health p99", contender.name, number, statistics.quantiles(times_ms, n=100)[98])


def health_ms(server: Server, action: Callable[[Order, float], None], order: Order) -> list[float]:
    """Milliseconds of the server's cheapest GET until the order was given up."""
    over = threading.Event()

    def give_up() -> None:
        try:
            action(order, DRAWING_S)
        finally:
            over.set()

    with ThreadPoolExecutor(1) as pool:
        giving_up = pool.submit(give_up)
        times_ms = server.health_ms(over, HEALTH_EVERY_S)
        giving_up.result()
    return times_ms


def busy_s(processor_s: Callable[[], float]) -> float:
    """Seconds until a server, whose processor time is given, is quiet: 0.1 at least, WATCH_S at most."""
    began = busy_until = time.monotonic()
    used_s = processor_s()
    while (now := time.monotonic()) - began < WATCH_S and now - busy_until < QUIET_S:
        time.sleep(WATCH_EVERY_S)
        before_s, used_s = used_s, processor_s()
        if used_s - before_s > BUSY_SHARE * (time.monotonic() - now):
            busy_until = time.monotonic()
    return max(busy_until - began, WATCH_EVERY_S)
