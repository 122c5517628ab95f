"""A reverse proxy on loopback that writes down each request, and can refuse some.

Object stores' own logs do not say what ranges were asked for, nor how many bytes a client took
before it hung up.

It runs in threads of the test's process. GDAL may hold Python's lock while it lists a folder, and
would then wait for ever: open rasters in this process with GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR,
or in one of their own, as the command is.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request: ``sent`` counts the answer's bytes that the client's socket took."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Recorder:
    """``refuse`` gets each request before it is passed on; what it returns, status and body, is the
    answer instead. ``rewrite`` may change its body."""

    port: int
    upstream: int = 0
    requests: list[Request] = field(default_factory=list)
    refuse: Callable[[Request], tuple[int, bytes] | None] = lambda request: None
    rewrite: Callable[[Request, bytes], bytes] = lambda request, body: body

    @property
    def sent(self) -> int:
        return sum(r.sent for r in self.requests)


@contextlib.contextmanager
def recorder() -> Iterator[Recorder]:
    """Listens on a free port; set ``upstream`` to the server's port before the first request."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.recorder = Recorder(server.server_address[1])
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.recorder
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        recorder = self.server.recorder
        request = Request(self.command, self.path, self.headers.get("Range"))
        recorder.requests.append(request)
        body = recorder.rewrite(request, self._body())
        if refused := recorder.refuse(request):
            request.status, said = refused
            self._head(request.status, [("Content-Length", str(len(said)))])
            self._write(request, said if self.command != "HEAD" else b"")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", recorder.upstream, timeout=60)
        with contextlib.closing(upstream):
            # The Host goes through as it came: S3's signatures cover it.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OURS:
                    upstream.putheader(name, value)
            if body or "Content-Length" in self.headers:
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            answer = upstream.getresponse()
            request.status = answer.status
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _OURS]
            if (length := answer.getheader("Content-Length")) is not None:
                kept.append(("Content-Length", length))
            elif self.command != "HEAD" and answer.status not in (204, 304):
                self.close_connection = True
                kept.append(("Connection", "close"))
            self._head(answer.status, kept)
            while data := answer.read1(1 << 16):
                self._write(request, data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass_on

    def _head(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _write(self, request: Request, data: bytes) -> None:
        try:
            self.wfile.write(data)
            request.sent += len(data)
        except OSError:  # it hung up: it has what it wanted
            self.close_connection = True
            raise

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


_OURS = {"content-length", "transfer-encoding", "connection", "keep-alive", "expect"}
