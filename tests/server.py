"""A server of the built site that answers as GitHub Pages does.

What is text is compressed, every answer may be kept for ten minutes, and what
is missing gets the site's own page with status 404.
"""

from __future__ import annotations

import functools
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, ClassVar

TEXT = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ipynb": "application/octet-stream",
    ".js": "application/javascript; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".map": "application/json; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".svg": "image/svg+xml",
    ".xml": "application/xml",
}
"""The type of each kind of file that is compressed, by suffix."""


class Handler(SimpleHTTPRequestHandler):
    """Answers requests for the files of one folder, without a log."""

    protocol_version = "HTTP/1.1"
    # A head and a body that are sent apart would wait for each other.
    disable_nagle_algorithm = True
    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        **TEXT,
        ".woff2": "font/woff2",
    }

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Send the headers, and return the body that goes with them."""
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            if not self.path.partition("?")[0].endswith("/"):
                return super().send_head()  # to the same address with a slash
            path /= "index.html"
        status = HTTPStatus.OK if path.is_file() else HTTPStatus.NOT_FOUND
        if status is HTTPStatus.NOT_FOUND:
            path = Path(self.directory, "404.html")
        small = path.suffix in TEXT and "gzip" in self.headers.get("Accept-Encoding", "")
        body = compressed(path) if small else path.read_bytes()
        self.send_response(status)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.send_header("Vary", "Accept-Encoding")
        if small:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        return BytesIO(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Answers many requests at once."""

    def handle_error(self, *_: object) -> None:
        """Let browsers leave before an answer is whole; what else is wrong, a test sees."""


@functools.cache
def compressed(path: Path) -> bytes:
    """Return what a file is with gzip."""
    return gzip.compress(path.read_bytes(), mtime=0)


@contextmanager
def serve(site: Path) -> Iterator[str]:
    """Serve a built site on a free port of this machine, and give its address."""
    handler = functools.partial(Handler, directory=str(site))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
