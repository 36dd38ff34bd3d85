"""A port in use: `mkdocs serve` says so in one line, without a traceback."""

from __future__ import annotations

import socket
from collections.abc import Callable

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.livereload import LiveReloadServer


def on_serve(
    server: LiveReloadServer, config: MkDocsConfig, builder: Callable[..., None]
) -> LiveReloadServer:
    """Try the address before the server does."""
    host, port = config.dev_addr
    with socket.socket(server.address_family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PluginError(
                f"cannot serve on {host}:{port}: {error.strerror}; "
                f"choose another port: mkdocs serve -a {host}:{port + 1}"
            ) from None
    return server
