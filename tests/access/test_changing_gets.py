"""GETs that change something (S-06): programs reach them; pages of other sites do not, whatever the browser omits."""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from adapters import ADAPTERS
from gateway.access.guard import Guard
from tests.support.access import Answer, ask
from tests.support.chromium import ARGUMENTS, chromium
from tests.support.live import Live, live

HOST = "gateway.lan"
CHROMIUM = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"
PATHS = [path for adapter in ADAPTERS for path in adapter.changing_paths]
PAGE = """<!doctype html><title>elsewhere</title><meta name="referrer" content="{referrer}"><body><script>
window.go = (base) => {{
  const add = (tag, fields) => document.body.append(Object.assign(document.createElement(tag), fields));
  for (const prefix of ['', '/api']) for (const path of ['/clear', '/cancel?task_id=TASK', '/image?task_id=DONE']) {{
    const url = base + prefix + path.replace('TASK', window.task).replace('DONE', window.done);
    for (const tag of ['img', 'script', 'iframe', 'audio', 'video', 'embed']) add(tag, {{src: url}});
    add('img', {{src: url, referrerPolicy: 'no-referrer'}});
    add('object', {{data: url}});
    for (const rel of ['prefetch', 'stylesheet', 'icon', 'preload']) add('link', {{rel, as: 'image', href: url}});
    add('div', {{style: `background: url(${{url}}); width: 9px; height: 9px`, textContent: '.'}});
    for (const headers of [{{}}, {{'Accept': '*/*', 'Accept-Language': '*'}}])
      fetch(url, {{mode: 'no-cors', headers, referrerPolicy: 'no-referrer'}}).catch(() => 0);
    fetch(url, {{headers: {{'User-Agent': 'curl/8'}}}}).catch(() => 0);
    fetch(url, {{headers: {{'X-Requested-With': 'x'}}}}).catch(() => 0);
    window.open(url);
    add('iframe', {{name: 'target'}});
    const form = Object.assign(document.createElement('form'), {{action: url, method: 'get', target: 'target'}});
    document.body.append(form);
    form.submit();
    navigator.sendBeacon(url);
  }}
}}
</script>"""


@pytest.fixture(scope="module")
def guard() -> Guard:
    from gateway.access.guard import Guard as Door
    from gateway.settings import Settings

    settings = Settings.model_validate({"access": {"hosts": [HOST], "origins": ["http://ui.lan:3000"]}})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    return Door(app, settings, is_changing_path=lambda path: path in PATHS)


def test_get_routes_that_change_state_are_exactly_those_without_head() -> None:
    routes = [route for adapter in ADAPTERS if adapter.name == "mflux-server" for route in adapter.routes]
    assert set(PATHS) == {prefix + path for prefix in ("", "/api") for path in ("/cancel", "/clear", "/image")}
    assert {r.path for r in routes if r.methods == {"GET"}} == set(PATHS)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user_agent": "curl/8.5.0", "accept": "*/*"},
        {"user_agent": "python-requests/2.32", "accept": "*/*", "accept_encoding": "gzip, deflate, br"},
        {"user_agent": "Python-urllib/3.12", "accept_encoding": "identity"},
        {"user_agent": "Wget/1.21.4", "accept": "*/*", "accept_encoding": "identity"},
        {"user_agent": "node", "accept": "*/*", "accept_language": "*", "sec_fetch_mode": "cors"},
        {"user_agent": "Go-http-client/1.1"},
        {"user_agent": CHROMIUM, "sec_fetch_site": "same-origin"},
        {"user_agent": CHROMIUM, "sec_fetch_site": "none"},
        {"user_agent": CHROMIUM, "referer": f"http://{HOST}:7861/studio", "accept_language": "en"},
        {"user_agent": CHROMIUM, "referer": "http://ui.lan:3000/"},
        {"user_agent": CHROMIUM, "x_requested_with": "a script"},
        {"user_agent": CHROMIUM, "authorization": "Bearer k"},
    ],
)
def test_get_routes_that_change_state_work_for_programs_and_our_own_pages(guard: Guard, fields: dict[str, str]) -> None:
    for path in PATHS:
        assert ask(guard, path, host=f"{HOST}:7861", **fields).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"user_agent": CHROMIUM},
        {"user_agent": CHROMIUM, "accept": "*/*", "accept_language": "*"},
        {"user_agent": CHROMIUM, "authorization": "Basic YTpi"},
        {"user_agent": "AppleCoreMedia/1.0.0.24A335 (Macintosh; U; Intel Mac OS X)", "accept": "*/*"},
        {"accept": "image/avif,image/webp,*/*;q=0.8"},
        {"accept": "text/html,application/xhtml+xml"},
        {"accept_language": "en-GB"},
        {"referer": "http://evil.test/"},
        {"referer": f"http://{HOST}:7861.evil.test/"},
        {"referer": f"http://{HOST}:7861@evil.test/"},
        {"referer": f"http://{HOST}:8000/"},
        {"referer": "about:blank"},
        {"referer": "http://[/"},
        {"upgrade_insecure_requests": "1"},
        {"cookie": "a=b"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "none", "origin": "http://evil.test"},
    ],
)
def test_requests_from_a_page_of_a_foreign_origin_change_nothing(guard: Guard, fields: dict[str, str]) -> None:
    for path in PATHS:
        answer: Answer = ask(guard, path, host=f"{HOST}:7861", **fields)
        assert answer.status == 403
        assert answer.code in ("cross_site", "bad_origin")
    assert ask(guard, "/status", host=f"{HOST}:7861", user_agent=CHROMIUM).status == 200


def test_referrer_policy_is_same_origin_only_for_hosts_without_fetch_metadata(guard: Guard) -> None:
    assert ask(guard, host=HOST).headers["referrer-policy"] == "same-origin"
    for host in ("localhost:7861", "127.0.0.1", "evil.test"):
        assert ask(guard, host=host).headers["referrer-policy"] == "no-referrer"


# ---- over a socket, and in a browser -------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("gets")
    with live(folder, config={"access": {"hosts": [HOST]}}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"Host": f"{HOST}:{gateway.port}"}) as client:
        yield client


@pytest.fixture
def tasks(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """A finished task and a waiting one behind a pause."""
    body = {"prompt": "a red circle", "width": 64, "height": 64}
    done = client.post("/api/generate", json=body).json()["task_id"]
    while client.get("/api/status", params={"task_id": done}).json()["status"] != "done":
        pass
    client.post("/api/v1/queue/pause")
    yield done, client.post("/api/generate", json=body).json()["task_id"]
    client.get("/api/clear").raise_for_status()
    client.post("/api/v1/queue/resume")


def ids(client: httpx.Client) -> set[str]:
    return {task["task_id"] for task in client.get("/api/tasks").json()}


def test_queue_is_cleared_by_scripts_without_an_origin_as_before(
    gateway: Live, client: httpx.Client, tasks: tuple[str, str]
) -> None:
    assert ids(client) == set(tasks)
    request = urllib.request.Request(f"{gateway.url}/api/cancel?task_id={tasks[1]}", headers={"Host": HOST})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert ids(client) == {tasks[0]}
    bare = http.client.HTTPConnection("127.0.0.1", gateway.port)
    bare.request("GET", "/clear", headers={"Host": HOST})
    assert bare.getresponse().status == 200
    bare.close()
    assert ids(client) == set()


class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = PAGE.format(referrer="no-referrer" if "silent" in self.path else "unsafe-url")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ", ".join(f"MAP {name} 127.0.0.1" for name in (HOST, "evil.test", f"other.{HOST}"))
    with chromium([*ARGUMENTS[:-1], f"--host-resolver-rules={names}"]) as browser:
        yield browser


@pytest.mark.parametrize("site", ["evil.test", f"other.{HOST}", HOST])
@pytest.mark.parametrize("path", ["/", "/silent"])
def test_page_of_a_foreign_origin_cannot_clear_the_queue(
    gateway: Live, client: httpx.Client, tasks: tuple[str, str], browser: Any, elsewhere: int, site: str, path: str
) -> None:
    """The last site is the gateway's own name, on another port."""
    context = browser.new_context()
    page = context.new_page()
    reached: list[str] = []
    context.on("request", lambda request: reached.append(request.url))
    page.goto(f"http://{site}:{elsewhere}{path}")
    page.evaluate("([task, done]) => { window.task = task; window.done = done; }", [tasks[1], tasks[0]])
    page.evaluate("base => window.go(base)", f"http://{HOST}:{gateway.port}")
    page.wait_for_timeout(1500)
    context.close()
    assert sum("/clear" in url for url in reached) > 10
    assert ids(client) == set(tasks)


def test_page_of_our_own_origin_shows_the_picture_and_clears_the_queue(
    gateway: Live, client: httpx.Client, tasks: tuple[str, str], browser: Any
) -> None:
    page = browser.new_page()
    page.goto(f"http://{HOST}:{gateway.port}/health/live")
    width = page.evaluate(
        """url => new Promise((resolve, reject) => {
          const picture = new Image();
          picture.onload = () => resolve(picture.naturalWidth);
          picture.onerror = () => reject(new Error('no picture'));
          picture.src = url;
        })""",
        f"/api/image?task_id={tasks[0]}",
    )
    assert width == 64
    assert page.evaluate("fetch('/api/clear').then(answer => answer.status)") == 200
    assert ids(client) == set()
    page.close()
