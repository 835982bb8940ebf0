"""A small web server that can fail in the ways real ones do."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Page:
    """What the server has under one path, and how it misbehaves when asked for it."""

    body: bytes
    tag: str | None = '"first"'
    honours_ranges: bool = True
    stops_at: list[int] = field(
        default_factory=list
    )  # the byte at which each of the first answers breaks off
    statuses: list[int] = field(
        default_factory=list
    )  # errors that the first answers are instead
    says_length: bool = True
    range_offset: int = 0  # by how much it misses the place that it was asked for
    barrier: threading.Event | None = None  # what it waits for before it answers
    stalls_at: int | None = None  # the byte at which it waits for `resumes`
    resumes: threading.Event = field(default_factory=threading.Event)
    drips: float = 0.0  # seconds between one byte and the next
    headers: dict[str, str] = field(default_factory=dict)  # what it says instead
    status: tuple[int, str] | None = None  # what it always answers


class Server:
    def __init__(self, address: str):
        self.address = address
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.hung_up = threading.Event()  # set once somebody does not hear an answer out

    def add(self, name: str, body: bytes, **misbehaviour: Any) -> str:
        """Puts a page there, and returns its URL."""
        self.pages["/" + name] = Page(body, **misbehaviour)
        return f"{self.address}/{name}"


class _Handler(BaseHTTPRequestHandler):
    site: Server

    def do_GET(self) -> None:
        self.site.requests.append(
            (self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        page = self.site.pages.get(self.path)
        if page is None:
            return self.send_error(404)
        if page.barrier:
            page.barrier.wait(10)
        if page.status:
            self.send_response(*page.status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            return self.end_headers()
        if page.statuses:
            return self.send_error(page.statuses.pop(0))
        return self._send(page, self._start(page))

    def _start(self, page: Page) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        changed = self.headers.get("If-Range", page.tag) != page.tag
        return int(match[1]) if match and page.honours_ranges and not changed else 0

    def _send(self, page: Page, start: int) -> None:
        total = len(page.body)
        if start >= total > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            start += page.range_offset
            self.send_header(
                "Content-Range",
                page.headers.get("Content-Range", f"bytes {start}-{total - 1}/{total}"),
            )
        if page.tag:
            self.send_header("ETag", page.tag)
        if page.says_length:
            self.send_header(
                "Content-Length", page.headers.get("Content-Length", str(total - start))
            )
        self.end_headers()
        try:
            if page.stalls_at is not None and start < page.stalls_at:
                self.wfile.write(page.body[start : page.stalls_at])
                page.resumes.wait(60)
                start = page.stalls_at
            while page.drips and start < total and not page.resumes.wait(page.drips):
                self.wfile.write(page.body[start : start + 1])
                start += 1
            self.wfile.write(
                page.body[start : page.stops_at.pop(0) if page.stops_at else total]
            )
        except ConnectionError:
            self.site.hung_up.set()
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        handler.site = Server(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(
            target=listening.serve_forever, kwargs={"poll_interval": 0.01}
        )
        thread.start()
        yield handler.site
        for page in handler.site.pages.values():
            page.resumes.set()
        listening.shutdown()
        thread.join()
