"""/sdapi/v1 and LoRAs: by which names prompts may call them, and by which hash an infotext tells them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx

from adapters.sdapi.loras import hashes, lora_rows
from adapters.sdapi.request_schemas import Txt2Img
from adapters.sdapi.responses import info, infotext
from adapters.shared.body import validated
from engine.protocol import Lora
from gateway.images.infotext import parse
from gateway.models.loras import LoraLibrary
from tests.support.live import live
from tests.support.lora import TINY, save_lora
from tests.support.sdapi import LIMITS, SMALL, to_request, told

HASH = hashlib.sha256(bytes(range(128))).hexdigest()[:12]
TINY_HASH = hashlib.sha256(bytes(range(256)) * 15).hexdigest()[:12]


def test_loras_of_a_request_reach_the_core() -> None:
    body = {"prompt": "x<lora:fur:0.5>", "lora": [{"path": "a/fur.safetensors", "multiplier": "2"}, {"path": "c"}]}
    found = to_request(validated(Txt2Img, body), checkpoint=None, limits=LIMITS)
    assert found.request.loras == (
        Lora(name="fur", scale=0.5),
        Lora(name="a/fur.safetensors", scale=2.0),
        Lora(name="c"),
    )


def test_lora_rows_have_the_fields_that_clients_read_and_no_folder(tmp_path: Path) -> None:
    file = save_lora(tmp_path, "style/ink", ss_output_name="inky", ss_sd_model_name="/home/me", ss_network_dim="8")
    file.with_suffix(".json").write_text(json.dumps({"activation text": "pen", "preferred weight": 0.7}))
    (tmp_path / "broken.safetensors").write_bytes(b"")
    rows = {row["name"]: row for row in lora_rows(LoraLibrary([tmp_path]))}
    assert set(rows) == {"style/ink", "night"}
    assert rows["style/ink"] == {
        "name": "style/ink",
        "alias": "inky",
        "path": "style/ink.safetensors",
        "metadata": {
            "ss_output_name": "inky",
            "ss_network_dim": "8",
            "activation text": "pen",
            "preferred weight": 0.7,
        },
    }


def test_lora_hashes_are_those_of_existing_files(tmp_path: Path) -> None:
    save_lora(tmp_path, "named")
    assert hashes(["named", "gone", "named"], LoraLibrary([tmp_path])) == {"named": HASH}


def test_the_infotext_has_lora_hashes_in_a1111s_grammar() -> None:
    found = told({"prompt": "a cat <lora:fur:1>"}, lora_hashes={"fur": "0123456789ab", "a:b,c": "ba9876543210"})
    line = 'Lora hashes: "fur: 0123456789ab, abc: ba9876543210"'
    assert line in infotext(found, 0)
    assert parse(infotext(found, 0))["Lora hashes"] == "fur: 0123456789ab, abc: ba9876543210"
    assert info(found)["extra_generation_params"] == {"Lora hashes": "fur: 0123456789ab, abc: ba9876543210"}
    assert "Lora" not in infotext(told({}), 0)


def test_a_lora_of_the_library_is_listed_applied_and_in_the_infotext(tmp_path: Path) -> None:
    save_lora(tmp_path / "models" / "loras", "named", TINY, ss_output_name="fur")
    config = {"models": {"cache_dir": str(tmp_path / "models")}}
    with live(tmp_path, config=config) as gateway, httpx.Client(base_url=f"{gateway.url}/sdapi/v1/") as client:
        row = {"name": "named", "alias": "fur", "path": "named.safetensors", "metadata": {"ss_output_name": "fur"}}
        assert row in client.get("loras").json()
        for tag in ("named", "fur"):
            answer = client.post("txt2img", json={**SMALL, "prompt": f"a cat <lora:{tag}:0.5>"}, timeout=100).json()
            notes = json.loads(answer["info"])
            assert notes["prompt"] == f"a cat <lora:{tag}:0.5>"
            assert notes["extra_generation_params"]["Lora hashes"] == f"named: {TINY_HASH}"
            assert "prompt" not in [item["param"] for item in notes["adjustments"]]
        off = {**SMALL, "prompt": "a cat <lora:fur:0.5>", "disable_extra_networks": True}
        assert "Lora hashes" not in client.post("txt2img", json=off, timeout=100).json()["info"]
