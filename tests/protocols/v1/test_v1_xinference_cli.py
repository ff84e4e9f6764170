"""What Xinference's command line asks and reads: `xinference/deploy/cmdline.py` of Xinference 4.1.0.

The keys that it indexes are listed here; its requests are those of the pinned xinference_client, whose code it shares.
`python -m benchmarks.xinference_cli` runs the command line itself where it is installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from xinference_client import AsyncRESTfulClient, RESTfulClient

from gateway.ocr.packages import MODEL as READER
from tests.support.live import Live
from tests.support.v1 import MODEL, SLASHED, assert_openai_error, gateway, input_png, jobs, opened, plain_client

LIST = {"model_type", "model_name", "controlnet"}
"""`xinference list`, of a row whose model_type is image."""
LAUNCH, REPLICA = {"status", "replica_statuses"}, {"error_message"}
"""`xinference launch`, of an instance and of each of its replicas."""
REGISTRATIONS, REGISTRATION = {"model_name", "is_builtin"}, {"model_name", "model_family"}
"""`xinference registrations --model-type image`, of a row, and of the answer about each."""
ENGINE = {"model_format", "model_size_in_billions", "quantizations"}
"""`xinference engine`, of each of an engine's rows."""
ENDED = ("READY", "ERROR", "TERMINATED")
OPERATOR, USER = "operators-key-of-some-length", "users-key-of-some-length"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with gateway(tmp_path_factory.mktemp("cli"), step_seconds=0.0, load_seconds=0.3) as running:
        yield running


@pytest.fixture
def client(served: Live) -> Iterator[RESTfulClient]:
    client = RESTfulClient(served.url)
    yield client
    for instance in client.session.get(f"{served.url}/v1/models/instances").json():
        client.terminate_model(instance["model_uid"])
    client.close()


def launched(client: RESTfulClient, name: str, **said: Any) -> list[dict[str, Any]]:
    """As `xinference launch` does: it does not wait, and asks every half second. The last statuses."""
    uid = client.launch_model(name, model_type="image", wait_ready=False, trust_remote_code=True, **said)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found: list[dict[str, Any]] = client.get_instance_info(name, uid)
        assert all(set(row) >= LAUNCH for row in found)
        if all(row["status"] in ENDED for row in found):
            return found
        assert 0 <= client.get_launch_model_progress(uid)["progress"] <= 1
        time.sleep(0.05)
    raise AssertionError(f"the launch of {name} never ended: {found}")


# ---- list ------------------------------------------------------------------------------------------


def test_xinference_model_list_rows_have_every_expected_key(client: RESTfulClient) -> None:
    rows = client.list_models()
    assert {MODEL, SLASHED, "studio", READER} <= set(rows)
    for uid, row in rows.items():
        assert set(row) >= LIST, uid
        assert client.describe_model(uid).keys() == row.keys()


# ---- launch and terminate --------------------------------------------------------------------------


def test_a_launch_is_followed_to_its_end_and_listed_until_it_is_terminated(client: RESTfulClient) -> None:
    assert client.get_instance_info(MODEL, MODEL) == []
    (instance,) = launched(client, MODEL)
    assert (instance["status"], instance["model_uid"], instance["model_name"]) == ("READY", MODEL, MODEL)
    assert instance["model_ability"] == ["text2image", "image2image", "inpainting"]
    assert client.get_launch_model_progress(MODEL)["progress"] == 1.0
    client.terminate_model(MODEL)
    assert client.get_instance_info(MODEL, MODEL) == []
    assert client.get_launch_model_progress(MODEL)["progress"] == 0.0


def test_launched_model_stays_ready_when_another_model_draws_before_the_poll(
    client: RESTfulClient, plain: httpx.Client
) -> None:
    client.launch_model(MODEL, model_type="image")
    ask = {"prompt": "x", "model": SLASHED, "size": "64x64"}
    assert plain.post("/v1/images/generations", json=ask).status_code == 200
    (instance,) = client.get_instance_info(MODEL, MODEL)
    assert instance["status"] == "READY"


@pytest.mark.parametrize("uid", ["mine", "my model.v2", "Äpfel:1", "a" * 128])
def test_model_uid_of_its_own_is_understood_on_every_route(
    client: RESTfulClient, plain: httpx.Client, uid: str
) -> None:
    (instance,) = launched(client, MODEL, model_uid=uid)
    assert (instance["model_uid"], instance["model_name"], instance["status"]) == (uid, MODEL, "READY")
    assert client.list_models()[uid]["model_name"] == MODEL
    model = client.get_model(uid)
    answers = [
        model.text_to_image("an apple", size="64*64", response_format="b64_json"),
        model.image_to_image(input_png(), "an apple", response_format="b64_json"),
        model.image_edit(input_png(), "an apple", response_format="b64_json"),
    ]
    assert [opened(answer["data"][0]["b64_json"]).width for answer in answers] == [64, 96, 96]
    assert {job["model"] for job in jobs(plain)[:3]} == {MODEL}
    assert client.get_launch_model_progress(uid)["progress"] == 1.0
    assert client.abort_request(uid, "none") == {"msg": "NOT_FOUND"}
    client.terminate_model(uid)
    assert client.get_instance_info(MODEL, uid) == []
    assert uid not in client.list_models()
    with pytest.raises(RuntimeError, match="not found"):
        client.get_model(uid)


def test_a_model_stays_in_memory_while_another_uid_of_it_is_launched(client: RESTfulClient) -> None:
    for uid in ("one", "two"):
        launched(client, MODEL, model_uid=uid)
    client.terminate_model("one")
    assert client.get_launch_model_progress("two")["progress"] == 1.0
    client.terminate_model("two")
    assert client.get_launch_model_progress(MODEL)["progress"] == 0.0


@pytest.mark.parametrize(
    "uid",
    [SLASHED, "studio", "dall-e-3", "gpt-image-1", READER, "instances", "a/progress", " x", "x\n", "a" * 129, "–"],
)
def test_model_uid_that_is_reserved_or_invalid_is_refused(plain: httpx.Client, uid: str) -> None:
    refused = plain.post("/v1/models", json={"model_name": MODEL, "model_type": "image", "model_uid": uid})
    assert assert_openai_error(refused, 400)["param"] == "model_uid"


def test_model_uid_in_use_cannot_be_taken_by_another_model(client: RESTfulClient) -> None:
    launched(client, MODEL, model_uid="mine")
    with pytest.raises(RuntimeError, match="Model is already in the model list, uid: mine"):
        client.launch_model(SLASHED, model_type="image", model_uid="mine")
    assert launched(client, MODEL, model_uid="mine")[0]["status"] == "READY"


def test_ocr_model_is_launched_and_terminated_under_any_uid(client: RESTfulClient) -> None:
    for said in ({}, {"model_uid": "eyes"}):
        (instance,) = launched(client, READER, **said)
        uid = instance["model_uid"]
        assert (instance["status"], instance["model_ability"]) == ("READY", ["ocr"])
        assert client.describe_model(uid)["model_ability"] == ["ocr"]
        client.terminate_model(uid)
        assert client.get_instance_info(READER, uid) == []
    assert "eyes" not in client.list_models()


def test_a_launch_that_fails_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with gateway(tmp_path, raise_in="load") as failing:
        client = RESTfulClient(failing.url)
        (instance,) = launched(client, MODEL, model_uid="mine")
        (replica,) = instance["replica_statuses"]
        assert instance["status"] == replica["status"] == "ERROR"
        assert set(replica) >= REPLICA
        assert "could not be loaded" in replica["error_message"]
        assert "mine" not in client.list_models()
        client.terminate_model("mine")
        assert client.get_instance_info(MODEL, "mine") == []
        client.close()


def test_a_launch_under_way_is_cancelled_or_terminated(tmp_path: Path) -> None:
    with gateway(tmp_path, load_seconds=30.0) as slow, plain_client(slow) as plain:
        client = RESTfulClient(slow.url)
        for end in (client.cancel_launch_model, client.terminate_model):
            client.launch_model(MODEL, model_type="image", model_uid="mine", wait_ready=False)
            (instance,) = client.get_instance_info(MODEL, "mine")
            assert instance["status"] in ("CREATING", "LOADING")
            end("mine")
            assert client.get_instance_info(MODEL, "mine") == []
            assert jobs(plain)[0]["status"] == "cancelled"
        client.close()


# ---- registrations, engines, what is on disk -------------------------------------------------------


def test_xinference_registrations_have_every_expected_key_and_a_description(client: RESTfulClient) -> None:
    rows = client.list_model_registrations("image")
    builtin = {row["model_name"]: row["is_builtin"] for row in rows}
    assert (builtin["flux2-tiny"], builtin["flux2-klein-4b"], builtin[READER], builtin[MODEL]) == (True,) * 3 + (False,)
    assert all(set(row) >= REGISTRATIONS for row in rows)
    for name in (MODEL, SLASHED, "flux2-tiny", "flux2-klein-4b", READER):
        described = client.get_model_registration("image", name)
        assert set(described) >= REGISTRATION
        assert described["model_name"] == name
    detailed = {row["model_name"]: row for row in client.list_model_registrations("image", detailed=True)}
    assert set(detailed) == set(builtin)
    assert all(set(row) >= REGISTRATION for row in detailed.values())
    here = {name: row["model_specs"][0]["cache_status"] for name, row in detailed.items()}
    assert (here["flux2-tiny"], here[MODEL], here["flux2-klein-4b"]) == (True, True, False)
    with pytest.raises(RuntimeError, match="not found"):
        client.get_model_registration("image", "none-such")


def test_xinference_engine_query_rows_have_every_expected_key(client: RESTfulClient) -> None:
    for name, engine in (("flux2-tiny", "mflux"), (SLASHED, "mflux"), ("flux2-klein-4b-8-bit", "mflux")):
        found = client.query_engine_by_model_name(name, model_type="image")
        assert list(found) == [engine]
        assert all(set(row) >= ENGINE for row in found[engine])
    assert found["mflux"][0]["quantizations"] == ["8-bit"]
    assert client.query_engine_by_model_name("flux2-tiny", model_type=None)["mflux"]
    assert list(client.query_engine_by_model_name(READER, model_type="image")) == [READER]
    with pytest.raises(RuntimeError, match="not found"):
        client.query_engine_by_model_name("none-such", model_type="image")


def test_models_on_disk_are_listed_without_their_paths(client: RESTfulClient, served: Live) -> None:
    rows = client.list_cached_models()
    assert {MODEL, "flux2-tiny"} <= {row["model_name"] for row in rows}
    assert "flux2-klein-4b" not in {row["model_name"] for row in rows}
    assert len({tuple(row) for row in rows}) == 1, "the command line shows the keys of the first row"
    assert str(served.folder) not in str(rows)
    assert [row["model_name"] for row in client.list_cached_models(MODEL)] == [MODEL]


@pytest.mark.parametrize("kind", ["LLM", "embedding", "rerank", "audio", "video", "world", "flexible", "none-such"])
def test_models_of_other_types_are_refused_with_the_xinference_message(
    client: RESTfulClient, plain: httpx.Client, kind: str
) -> None:
    for ask in (
        lambda: client.list_model_registrations(kind),
        lambda: client.get_model_registration(kind, MODEL),
        lambda: client.query_engine_by_model_name(MODEL, model_type=kind),
    ):
        with pytest.raises(RuntimeError, match=f"Unsupported model type: {kind}"):
            ask()
    with pytest.raises(RuntimeError, match="Only models of type 'image' are served"):
        client.launch_model(MODEL, model_type=kind, model_engine="vllm", wait_ready=False)
    error = assert_openai_error(plain.get(f"/v1/model_registrations/{kind}"), 400)
    assert error["param"] == "model_type"


async def test_xinference_async_client_launches_lists_and_terminates_models(served: Live) -> None:
    client = AsyncRESTfulClient(served.url)
    try:
        assert await client.launch_model(MODEL, model_type="image", model_uid="later") == "later"
        assert (await client.get_instance_info(MODEL, "later"))[0]["status"] == "READY"
        assert await client.list_model_registrations("image")
        await client.terminate_model("later")
    finally:
        await client.close()


# ---- keys ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("locked")
    keys = folder / "keys"
    keys.write_text(f"boss {OPERATOR}\nuser {USER}\n")
    keys.chmod(0o600)
    access = {"keys_file": str(keys), "operators": ["boss"]}
    with gateway(folder, {"access": access}, ready=False, step_seconds=0.0) as running:
        yield running


def test_login_answers_a_token_that_opens_everything_else(locked: Live) -> None:
    client = RESTfulClient(locked.url)
    with pytest.raises(RuntimeError, match="A valid API key is required"):
        client.list_models()
    client.login("anybody", OPERATOR)
    token = client._get_token()
    client.close()
    again = RESTfulClient(locked.url)
    again._set_token(token)  # as the command line does with what it stored
    assert launched(again, MODEL)[0]["status"] == "READY"
    assert again.list_model_registrations("image")
    again.terminate_model(MODEL)
    again.close()


def test_a_wrong_password_is_refused_and_counted_with_all_wrong_keys(locked: Live) -> None:
    with plain_client(locked) as plain:
        said = {"username": "boss", "password": "no-key-at-all"}
        answers = [plain.post("/token", json=said) for _ in range(10)]
        assert [assert_openai_error(answer, 401)["code"] for answer in answers] == ["invalid_api_key"] * 10
        assert "no-key-at-all" not in answers[0].text
        assert_openai_error(plain.post("/token", json=said), 429)
        assert_openai_error(plain.get("/v1/models", headers={"X-API-Key": "another-wrong-key"}), 429)
        right = plain.post("/token", json={"username": "boss", "password": OPERATOR})
        assert right.json() == {"access_token": OPERATOR, "token_type": "bearer"}
        assert right.headers["cache-control"] == "no-store"
        for body in ([], {}, {"password": 7}, {"password": None}, {"password": {"a": OPERATOR}}):
            refused = plain.post("/token", json=body)
            assert_openai_error(refused, 400)
            assert OPERATOR not in refused.text


def test_login_does_not_exist_when_no_keys_are_configured(plain: httpx.Client, client: RESTfulClient) -> None:
    client.login("anybody", "anything")
    assert_openai_error(plain.post("/token", json={"username": "a", "password": "b"}), 404)


def test_model_uids_are_separate_for_each_key(locked: Live) -> None:
    boss, user = (RESTfulClient(locked.url, api_key=key) for key in (OPERATOR, USER))
    try:
        for client, name in ((boss, MODEL), (user, SLASHED)):
            assert launched(client, name, model_uid="mine")[0]["model_name"] == name
        assert [client.describe_model("mine")["model_name"] for client in (boss, user)] == [MODEL, SLASHED]
        user.terminate_model("mine")
        assert user.get_instance_info(SLASHED, "mine") == []
        assert boss.get_instance_info(MODEL, "mine")[0]["status"] == "READY"
        with pytest.raises(RuntimeError, match="may not unload"):
            user.terminate_model(SLASHED)
        boss.terminate_model("mine")
    finally:
        boss.close()
        user.close()
