"""What arrives in part, late, or makes no sense is refused, and tells the terminal nothing."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import headwater.server.site
from headwater.cli.serve import HOST
from headwater.server.deadline import Deadline
from tests.serving import TOKEN, Served, serving_one

SECONDS = 0.6


@pytest.fixture
def served(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Served]:
    """A server with little patience, which must write and log nothing."""
    monkeypatch.setattr(Deadline, "seconds", SECONDS)
    with serving_one(tmp_path / "graphs") as found:
        yield found
        assert found.json("GET", "/graphs") == (200, ["one"])  # it goes on
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert capfd.readouterr() == ("", "")


def head(served: Served, line: str, *headers: str) -> bytes:
    """The start of a request by somebody who has the token."""
    lines = (f"{line} HTTP/1.1", f"Host: {HOST}:{served.port}", f"Authorization: token {TOKEN}")
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def sent(served: Served, *parts: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """All that is answered until the server closes the connection, and after how many seconds."""
    start = time.monotonic()
    with socket.create_connection((HOST, served.port), timeout=20) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer, time.monotonic() - start


def assert_one_sentence(answer: bytes, status: int) -> None:
    first, _, body = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"x-frame-options: DENY" in first or b"X-Frame-Options: DENY" in first
    assert json.loads(body)["error"].endswith(".")


JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        ("POST /traces", JSON, "Content-Length: 20"),
        ("POST /traces", JSON, "Transfer-Encoding: chunked"),
        ("PUT /graphs/one/annotations", JSON, "Content-Length: 20"),
    ],
)
def test_half_a_request_is_waited_for_no_longer_than_it_may_take(
    served: Served, half: bytes | tuple[str, ...]
):
    start = half if isinstance(half, bytes) else head(served, *half)
    answer, took = sent(served, start)
    assert_one_sentence(answer, 408)
    assert SECONDS * 0.9 < took < SECONDS + 3


def test_one_byte_at_a_time_gives_no_more_time(served: Served):
    start = head(served, "POST /traces", JSON, "Content-Length: 1000")
    answer, took = sent(served, start, *[b" "] * 40, pause=0.1)
    assert_one_sentence(answer[answer.index(b"HTTP") :], 408)
    assert took < 4 + SECONDS


def test_an_answer_may_take_longer_than_a_request(served: Served, monkeypatch: pytest.MonkeyPatch):
    opened = headwater.server.site.open_graph

    def slowly(path: Path) -> object:
        time.sleep(2 * SECONDS)
        return opened(path)

    monkeypatch.setattr(headwater.server.site, "open_graph", slowly)
    assert served.ask("GET", "/graphs/one")[0] == 200


def test_a_connection_stays_open_for_the_next_request(served: Served):
    requests = [head(served, "GET /graphs")] * 4 + [
        head(served, "GET /graphs", "Connection: close")
    ]
    answer, _ = sent(served, *requests, pause=SECONDS * 0.75)
    assert answer.count(b"HTTP/1.1 200") == 5
    assert b"408" not in answer


def test_a_connection_that_rests_is_closed_without_a_word(served: Served):
    """Long after the time that a request may take, as uvicorn does: 5 s."""
    answer, took = sent(served, head(served, "GET /graphs"))
    assert answer.count(b"HTTP/1.1") == 1
    assert took > 4


def test_who_leaves_in_the_middle_of_an_upload_leaves_nothing_behind(served: Served):
    for line in ("POST /traces", "PUT /graphs/one/annotations", "POST /graphs/one/interventions"):
        with socket.create_connection((HOST, served.port), timeout=20) as connection:
            connection.sendall(head(served, line, JSON, "Content-Length: 2000") + b'{"prompt": "')
            time.sleep(0.2)
    time.sleep(0.2)
    assert served.ask("GET", "/jobs/1")[0] == 404
    assert [path.name for path in served.folder.iterdir()] == ["one.safetensors"]


NINES = "9" * 5000


@pytest.mark.parametrize("number", [NINES, "-1", "1.5", "٣", "1e3", "0x1", " 1", "+1", "1_0"])
def test_what_is_no_number_of_a_job_is_not_found(served: Served, number: str):
    for method in ("GET", "DELETE"):
        status, told = served.json(method, f"/jobs/{quote(number)}")
        assert status == 404
        assert told["error"].startswith("There is no job ")
        assert len(told["error"]) < 50


@pytest.mark.parametrize("length", [NINES, "-1", "1, 2", "ten", "1e3", ""])
def test_a_length_that_is_none_is_refused(served: Served, length: str):
    answer, _ = sent(served, head(served, "POST /traces", JSON, f"Content-Length: {length}"))
    assert_one_sentence(answer, 400)


@pytest.mark.parametrize("body", [
    f'{{"prompt": {NINES}}}',
    f'{{"edits": [{{"kind": "set", "nodes": "error", "number": {NINES}}}]}}',
    f'{{"edits": [{{"kind": "set", "nodes": "feature:{NINES}/1@1", "number": 1}}]}}',
    f'{{"schema_version": {NINES}}}',
    "[" * 100_000,
    '{"prompt": "\\ud800"}',
])  # fmt: skip
def test_long_numbers_and_deep_lists_in_a_body_are_refused(served: Served, body: str):
    for method, path in (
        ("POST", "/traces"),
        ("POST", "/graphs/one/interventions"),
        ("PUT", "/graphs/one/annotations"),
    ):
        status, told = served.json(method, path, body.encode())
        assert status == 422, (path, told)
        assert told["error"].startswith("The request is not a valid ")
        assert "\n" not in told["error"]
        assert len(told["error"]) < 300
    assert served.ask("GET", "/jobs/1")[0] == 404


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"a: b\r\n" * 20000],
)
def test_what_is_no_http_is_refused(served: Served, garbage: bytes):
    assert_one_sentence(sent(served, garbage)[0], 400)


def test_garbage_behind_a_refusal_is_no_news(served: Served):
    """The answer is on its way already, and there can be no second."""
    for token in ("Authorization: token wrong", "X-Nothing: 1"):
        request = f"POST /traces HTTP/1.1\r\nHost: {HOST}:{served.port}\r\n{token}\r\n"
        request += "Transfer-Encoding: chunked\r\n\r\n"
        answer, _ = sent(served, request.encode(), b"zzz\r\n", pause=0.2)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 403")


def test_there_is_nothing_but_http(served: Served):
    upgrade = ("Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    answer, _ = sent(served, head(served, "GET /none", *upgrade, key))
    assert answer.startswith(b"HTTP/1.1 404")
