"""The bench against peers, without them: its table, its checkpoint, its clients against this gateway."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.peers import measures
from benchmarks.peers.__main__ import PROGRAMS
from benchmarks.peers.bare import Bare
from benchmarks.peers.bench import SEED, SEEN, Bench, differences
from benchmarks.peers.checkpoint import checkpoint_in
from benchmarks.peers.environments import Unavailable, prepare
from benchmarks.peers.measures import busy_s, crowd
from benchmarks.peers.order import Order
from benchmarks.peers.ours import MfluxGateway
from benchmarks.peers.servers import Failed, Server
from benchmarks.peers.table import ROWS, Sample, shortfalls, table, values_of

INSTALLS = [(program.name, program.install) for make in PROGRAMS if (program := make()).install is not None]
OURS, BARE = MfluxGateway.name, Bare.name


# ---- what is installed ----------------------------------------------------------------------------------


def test_pins_of_every_peer_are_exact() -> None:
    assert {name for name, _ in INSTALLS} == {"mfluxible", "mflux-webui-uno", "mlx-openai-server"}
    for name, install in INSTALLS:
        for requirement in install.requirements():
            assert re.fullmatch(r"[\w-]+==\d+(\.\d+)+(; sys_platform == 'linux')?", requirement), requirement
        assert {requirement.partition("==")[0] for requirement in install.requirements()} >= {name, "mflux", "mlx"}


def test_peer_whose_environment_cannot_be_made_is_left_out_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, install in INSTALLS:
        with pytest.raises(Unavailable, match=rf"^{name} is left out: uv, .* is not installed\.$"):
            prepare(tmp_path, name, install)


# ---- the table ------------------------------------------------------------------------------------------


def samples(key: str, **values: tuple[float, ...]) -> list[Sample]:
    names = {"ours": OURS, "bare": BARE}
    return [
        Sample(key, names.get(name, name), number, value)
        for name, rounds in values.items()
        for number, value in enumerate(rounds)
    ]


def row_of(text: str, title: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_table_has_medians_spread_and_the_best_peer() -> None:
    given = samples("ready", bare=(3.0,), ours=(1.0, 0.8, 0.9), slow=(9.0,), fast=(1.8, 1.8))
    text = table(given, [BARE, OURS, "slow", "fast"], OURS, BARE)
    assert row_of(text, "start until it takes requests, s") == [
        "3.00",
        "0.90 (0.80 to 1.00)",
        "9.00",
        "1.80 (1.80 to 1.80)",
        "2.00x",
    ]
    assert shortfalls(given, [BARE, OURS, "slow", "fast"], OURS, BARE) == []


def test_table_compares_with_bare_mflux_in_the_same_round_only() -> None:
    given = samples("new 256", bare=(2.0, 4.0), ours=(1.0, 4.0, 99.0), peer=(2.0,))
    row = next(row for row in ROWS if row.title == "new prompt, 256 px, to bare")
    assert values_of(row, given, BARE) == {BARE: [1.0, 1.0], OURS: [0.5, 1.0], "peer": [1.0]}
    cells = row_of(table(given, [BARE, OURS, "peer"], OURS, BARE), row.title)
    assert cells == ["1", "0.75 (0.50 to 1.00)", "1.00", "1.33x"]


def test_table_names_rows_in_which_a_peer_is_ahead_and_leaves_gaps() -> None:
    given = [
        *samples("four clients", bare=(25.0,), ours=(30.0,), one=(20.0,), other=(40.0,)),
        *samples("new 128", bare=(1.0,), ours=(0.9,), one=(1.2,)),
    ]
    contenders = [BARE, OURS, "one", "other"]
    text = table(given, contenders, OURS, BARE)
    assert row_of(text, "images a minute, four clients") == ["25.0", "30.0", "20.0", "40.0", "0.75x"]
    assert row_of(text, "new prompt, 128 px, to bare") == ["1", "0.90", "1.20", "-", "1.33x"]
    assert shortfalls(given, contenders, OURS, BARE) == ["other is ahead in: images a minute, four clients (0.75x)."]


def test_one_client_draws_new_prompts_and_seen_ones_alternately() -> None:
    given = [*samples("new 256", ours=(2.0,)), *samples("seen 256", ours=(1.0,))]
    assert values_of(ROWS[0], given, BARE) == {OURS: [40.0]}
    assert values_of(ROWS[0], given[:1], BARE) == {}


# ---- the checkpoint and the clients ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mlx.core")
    folder = tmp_path_factory.mktemp("peers")
    checkpoint_in(folder)
    return folder


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[Server]:
    """This gateway with the fake engine, which takes a tenth of a second for a step."""
    engine = {"backend": "fake", "fake_script": json.dumps({"step_seconds": 0.1})}
    started = Server(MfluxGateway(engine), Path(sys.executable), tmp_path, checkpoint_in(home))
    started.start()
    yield started
    started.stop()


def test_checkpoint_gives_equal_pixels_in_the_gateway_and_in_bare_mflux(home: Path) -> None:
    checkpoint = checkpoint_in(home)
    order = Order(SEEN[0], (SEED, SEED + 1), 64, steps=1)
    bare = Bare(home, checkpoint)
    gateway = Server(MfluxGateway(), Path(sys.executable), home / "gateway", checkpoint)
    try:
        gateway.start()
        bare.start()
        ours, alone = gateway.draw(order), bare.draw(order)
    finally:
        gateway.stop()
        bare.stop()
    assert len(ours) == len(alone) == 2
    for one, other in zip(ours, alone, strict=True):
        assert differences({OURS: one, BARE: other}, BARE) == {OURS: 0}
        assert len(Image.open(io.BytesIO(one)).getcolors(1 << 16) or ()) > 100
    assert ours[0] != ours[1]


def test_clients_draw_at_once_and_nothing_is_left_behind(server: Server) -> None:
    orders = [replace(order, steps=1) for order in crowd(Bench(Bare(Path(), Path()), [server], 0.0), each=2)]
    server.draw_all(orders, clients=4)
    assert Image.open(io.BytesIO(server.draw(orders[0])[0])).size == (256, 256)
    assert 10 < server.memory_mb() < 2000
    assert busy_s(server.processor_s) < 30
    processes = server.processes()
    assert len(processes) >= 2
    server.stop()
    assert not any(process.is_running() for process in processes)


@pytest.mark.parametrize("end", ["hang_up", "cancel"])
def test_order_is_given_up_while_health_is_measured(server: Server, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "DRAWING_S", 1.0)
    times_ms = measures.health_ms(server, getattr(server, end), Order(SEEN[0], (SEED,), 64, steps=50))
    assert times_ms
    assert min(times_ms) > 0
    assert len(server.draw(Order(SEEN[0], (SEED,), 64, steps=1))) == 1


def test_crowd_has_new_and_seen_prompts_for_each_client_and_at_each_time() -> None:
    orders = crowd(Bench(Bare(Path(), Path()), [], 0.0), each=2)
    new = [order.prompt not in SEEN for order in orders]
    assert new == [True, False, True, False, False, True, False, True]
    assert len({order.prompt for order in orders if order.prompt not in SEEN}) == 4
    assert len({order.seeds for order in orders}) == 8


def test_server_that_leaves_at_its_start_fails_with_its_last_words(home: Path, tmp_path: Path) -> None:
    broken = Server(MfluxGateway({"backend": "none"}), Path(sys.executable), tmp_path, checkpoint_in(home))
    with pytest.raises(Failed, match=r"^mflux-gateway left at its start: \S"):
        broken.start()
    broken.stop()


def test_server_that_fails_in_its_turn_is_stopped_and_left_out(server: Server) -> None:
    bench = Bench(Bare(Path(), Path()), [server], time.monotonic() + 60)
    with bench.turn(server, warm=False):
        server.hang_up(Order(SEEN[0], (SEED,), 64), after_s=30)
    assert bench.servers == []
    assert not server.running
    assert bench.notes == ["Left out from here on: mflux-gateway drew 2 steps within 30 s, too soon to hang up."]
