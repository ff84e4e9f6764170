"""/sdapi/v1 and LoRAs: by which names prompts may call them, and by which hash an infotext tells them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from adapters.base import validated
from adapters.sdapi.infotext import parse
from adapters.sdapi.loras import alias_of, hashes, names_by_alias
from adapters.sdapi.payloads import Txt2Img
from adapters.sdapi.reply import info, infotext
from adapters.sdapi.request import to_request
from engine.protocol import Lora
from tests.live import live
from tests.sdapi_support import LIMITS, SMALL, told

WEIGHTS = bytes(range(256)) * 4
HASH = hashlib.sha256(WEIGHTS).hexdigest()[:12]


def a_lora(folder: Path, name: str, **metadata: str) -> Path:
    """A safetensors file: length of the header, header, weights."""
    header = json.dumps({"__metadata__": metadata} if metadata else {}).encode()
    file = folder / f"{name}.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + WEIGHTS)
    return file


def test_a_lora_is_called_by_its_file_or_as_its_trainer_called_it(tmp_path: Path) -> None:
    plain, named = a_lora(tmp_path, "plain"), a_lora(tmp_path, "named", ss_output_name="fur")
    assert alias_of("plain", plain) == "plain"
    assert alias_of("named", named) == "fur"
    assert names_by_alias({"plain": plain, "named": named}) == {"fur": "named"}


def test_what_two_loras_claim_is_nobodys_and_a_file_comes_before_an_alias(tmp_path: Path) -> None:
    one, other = (a_lora(tmp_path, name, ss_output_name="fur") for name in ("one", "other"))
    assert names_by_alias({"one": one, "other": other}) == {}
    assert names_by_alias({"one": one, "fur": other}) == {}


def test_the_hash_is_of_the_weights_whatever_the_header_says(tmp_path: Path) -> None:
    files = {name: a_lora(tmp_path, name, note=name) for name in ("a", "b")}
    assert hashes(["a", "b", "a", "gone"], files) == {"a": HASH, "b": HASH}
    noted = a_lora(tmp_path, "c", sshs_model_hash="0123456789abcdef")
    assert hashes(["c"], {"c": noted}) == {"c": "0123456789ab"}
    odd = a_lora(tmp_path, "d", sshs_model_hash="../x")
    assert hashes(["d"], {"d": odd}) == {"d": HASH}


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\x02" + bytes(7) + b"[]", b"\x05" + bytes(7) + b"nope!"])
def test_a_file_that_is_no_lora_keeps_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    assert alias_of("x", file) == "x"
    assert set(hashes(["x"], {"x": file})) <= {"x"}
    file.unlink()
    assert hashes(["x"], {"x": file}) == {}


def test_aliases_become_names_wherever_a_lora_is_called() -> None:
    body = {"prompt": "x<lora:fur:0.5>", "lora": [{"path": "a/b/fur.safetensors", "multiplier": "2"}, {"path": "c"}]}
    found = to_request(validated(Txt2Img, body), checkpoint=None, limits=LIMITS, lora_aliases={"fur": "named"})
    assert found.request.loras == (Lora(name="named", scale=0.5), Lora(name="named", scale=2.0), Lora(name="c"))


def test_the_infotext_tells_hashes_in_a1111s_grammar() -> None:
    found = told({"prompt": "a cat <lora:fur:1>"}, lora_hashes={"fur": "0123456789ab", "a:b,c": "ba9876543210"})
    line = 'Lora hashes: "fur: 0123456789ab, abc: ba9876543210"'
    assert line in infotext(found, 0)
    assert parse(infotext(found, 0))["Lora hashes"] == "fur: 0123456789ab, abc: ba9876543210"
    assert info(found)["extra_generation_params"] == {"Lora hashes": "fur: 0123456789ab, abc: ba9876543210"}
    assert "Lora" not in infotext(told({}), 0)


def test_a_lora_of_the_library_is_listed_put_on_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "loras"
    folder.mkdir(parents=True)
    a_lora(folder, "named", ss_output_name="fur")
    config = {"models": {"cache_dir": str(tmp_path / "models")}}
    with live(tmp_path, config=config) as gateway, httpx.Client(base_url=f"{gateway.url}/sdapi/v1/") as client:
        row = {"name": "named", "alias": "fur", "path": "named.safetensors", "metadata": {}}
        assert row in client.get("loras").json()
        for tag in ("named", "fur"):
            answer = client.post("txt2img", json={**SMALL, "prompt": f"a cat <lora:{tag}:0.5>"}, timeout=100).json()
            notes = json.loads(answer["info"])
            assert notes["prompt"] == f"a cat <lora:{tag}:0.5>"
            assert notes["extra_generation_params"]["Lora hashes"] == f"named: {HASH}"
            assert "prompt" not in [item["param"] for item in notes["adjustments"]]
        off = {**SMALL, "prompt": "a cat <lora:fur:0.5>", "disable_extra_networks": True}
        assert "Lora hashes" not in client.post("txt2img", json=off, timeout=100).json()["info"]
