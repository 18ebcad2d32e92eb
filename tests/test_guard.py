"""Who may use `headwater serve`: whoever has its token, from its own pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from starlette.types import ASGIApp, Receive, Scope, Send

import headwater.server.site
from headwater.cli.serve import HOST
from headwater.server.guard import Guard
from tests.browser import needs_chromium
from tests.serving import TOKEN, Served, serving_one

# As the specifications of each spell them.
EXPECTED = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REQUESTS = [
    ("GET", "/", None),
    ("GET", "/graphs", None),
    ("GET", "/graphs/one", None),
    ("PUT", "/graphs/one/annotations", {"schema_version": 1}),
    ("POST", "/graphs/one/interventions", {"edits": []}),
    ("POST", "/traces", {"prompt": "a"}),
    ("POST", f"/traces?token={TOKEN}", {"prompt": "a"}),  # it only leads to a page
    ("GET", "/jobs/1", None),
    ("DELETE", "/jobs/1", None),
    ("GET", "/no/such/thing", None),
    ("HEAD", "/", None),
]


@pytest.fixture
def let_in() -> list[str]:
    """Paths of the requests that passed the guard."""
    return []


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, let_in: list[str]) -> Iterator[Served]:
    class Counting(Guard):
        def __init__(self, app: ASGIApp, port: int, token: str) -> None:
            async def counted(scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http":
                    let_in.append(scope["path"])
                await app(scope, receive, send)

            super().__init__(counted, port, token)

    monkeypatch.setattr(headwater.server.site, "Guard", Counting)
    with serving_one(tmp_path / "graphs") as found:
        yield found


@pytest.mark.parametrize("told", ["", "token", "token ", "token a-toke", "token a-token2",
                                  "Basic a-token", "token \xfc", "bearer a-token"])  # fmt: skip
def test_without_the_token_nothing_is_opened_listed_or_done(
    served: Served, let_in: list[str], told: str
):
    for method, path, body in REQUESTS:
        status, content, _ = served.ask(method, path, body, authorization=told)
        assert status == 403, (method, path)
        assert method == "HEAD" or b"open the address that `headwater serve` printed" in content
    wrong = f"headwater-{served.port}=wrong; other={TOKEN}; headwater-1={TOKEN}"
    assert served.ask("GET", "/graphs", authorization=told, cookie=wrong)[0] == 403
    assert let_in == []
    assert [path.name for path in served.folder.iterdir()] == ["one.safetensors"]


def test_the_address_with_the_token_leaves_a_cookie_and_leads_to_the_one_without(served: Served):
    for path, leads in (
        ("/", "/"),
        ("/graphs/one", "/graphs/one"),
        ("//evil.example/a", "/evil.example/a"),
        ("/%5Cevil.example", "/%5Cevil.example"),
        ("/graphs/%C3%BC%0D%0Aa", "/graphs/%C3%BC%0D%0Aa"),
    ):
        status, content, headers = served.ask("GET", f"{path}?token={TOKEN}", authorization="")
        assert (status, headers["location"], content) == (303, leads, b"")
        cookie, *rules = headers["set-cookie"].split("; ")
        assert {rule.lower() for rule in rules} == {"httponly", "samesite=strict", "path=/"}
        # Cookies are sent to all ports of a host, so two servers must not share a name.
        assert cookie == f"headwater-{served.port}={TOKEN}"
        found, told, _ = served.ask("GET", "/graphs", authorization="", cookie=cookie)
        assert (found, told) == (200, b'["one"]')
    for wrong in ("", "a", TOKEN + "a", "%C3%BC", "%FF"):
        status, _, headers = served.ask("GET", f"/?token={wrong}", authorization="")
        assert (status, headers["set-cookie"]) == (403, None)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_another_page_asks_is_refused_whatever_the_browser_adds_to_it(
    served: Served, let_in: list[str], site: str
):
    """Cookies do not tell ports of a host apart: another server's page is of the same site."""
    for method, path, body in [*REQUESTS, ("GET", f"/?token={TOKEN}", None)]:
        status, content, headers = served.ask(method, path, body, sec_fetch_site=site)
        assert (status, headers["set-cookie"]) == (403, None)
        assert method == "HEAD" or b"its own pages only" in content
    assert let_in == []
    for ours in ("same-origin", "none"):
        assert served.ask("GET", "/graphs/one", sec_fetch_site=ours)[0] == 200


def test_every_answer_has_the_headers_that_keep_it_to_itself(served: Served):
    asked = [
        (200, "GET", "/", None, {}),
        (200, "GET", "/graphs", None, {}),
        (200, "GET", "/graphs/one", None, {}),
        (202, "POST", "/traces", {"prompt": "a"}, {}),
        (204, "PUT", "/graphs/one/annotations", {"schema_version": 1}, {}),
        (303, "GET", f"/?token={TOKEN}", None, {}),
        (403, "GET", "/", None, {"authorization": ""}),
        (403, "GET", "/", None, {"host": "evil.example"}),
        (404, "GET", "/nothing", None, {}),
        (405, "PUT", "/", None, {}),
        (415, "POST", "/traces", {"prompt": "a"}, {"content_type": "text/plain"}),
        (422, "POST", "/traces", {}, {}),
    ]
    for expected, method, path, body, headers in asked:
        status, _, found = served.ask(method, path, body, **headers)
        assert status == expected
        assert {name: found[name] for name in EXPECTED} == EXPECTED
        policy = dict(rule.split(" ", 1) for rule in found["content-security-policy"].split("; "))
        assert policy["frame-ancestors"] == "'none'"
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"


def test_a_person_reads_a_refusal_as_a_sentence_and_a_program_as_json(served: Served):
    as_browsers = "text/html,application/xhtml+xml,*/*;q=0.8"
    for path, told in (("/", "needs its token"), ("/graphs/no", "There is no graph 'no'")):
        token = "" if path == "/" else f"token {TOKEN}"
        _, content, headers = served.ask("GET", path, authorization=token, accept=as_browsers)
        assert headers.get_content_type() == "text/plain"
        assert told in content.decode()
        assert told in served.json("GET", path, authorization=token)[1]["error"]


class Foreign(BaseHTTPRequestHandler):
    """A page that shows another in a frame, and asks for it as a picture and in other ways."""

    address = ""

    def do_GET(self) -> None:
        page = f"""<!doctype html><iframe src="{self.address}/"></iframe><img src="{self.address}/">
            <script>
            window.tried = Promise.allSettled([
              fetch("{self.address}/graphs/one", {{mode: "no-cors", credentials: "include"}}),
              fetch("{self.address}/traces", {{method: "POST", mode: "no-cors", body: "{{}}"}}),
            ]);
            </script>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@needs_chromium
def test_a_page_of_another_port_neither_shows_ours_nor_gets_an_answer(
    served: Served, page: Page, let_in: list[str]
):
    """With the cookie in the browser, which sends it to every port of this machine."""
    page.goto(served.address)
    assert page.url == f"http://{HOST}:{served.port}/"
    expect(page.locator("#graphs")).to_have_text("one")
    assert let_in == ["/", "/graphs"]
    assert page.evaluate("document.cookie") == ""
    Foreign.address = f"http://{HOST}:{served.port}"
    with ThreadingHTTPServer((HOST, 0), Foreign) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        page.goto(f"http://{HOST}:{other.server_port}/")
        page.evaluate("window.tried.then(String)")
        framed = page.frames[1]
        assert framed.locator("textarea").count() == 0
        other.shutdown()
        thread.join()
    assert let_in == ["/", "/graphs"]
