"""Opens the door: address, QR code, certificate and the WSGI server.

In: the command line's choices. Out: a page that answers until it is interrupted. Plain http is served
by waitress; https by cheroot, because waitress speaks no TLS.
"""

from __future__ import annotations

import io
import logging
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qrcode
from flask import Flask

from liveness_utils.errors import ConfigError
from liveness_utils.web.limits import LIMITS, Limits

LOCAL = ("127.0.0.1", "localhost", "::1")


def addresses(host: str, port: int, secure: bool) -> list[str]:
    """The addresses under which the page is reached, the one for a phone first.

    >>> addresses("127.0.0.1", 8000, False)
    ['http://127.0.0.1:8000/']
    """
    scheme = "https" if secure else "http"
    names = [lan_address(), "localhost"] if host in ("0.0.0.0", "::", "") else [host]
    return [f"{scheme}://{f'[{n}]' if ':' in n else n}:{port}/" for n in names]


def lan_address() -> str:
    """This machine's address in the network that leads out, by asking the routing table only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: no packet is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def qr_text(address: str) -> str:
    """The address as a QR code in half-block characters, for a terminal."""
    code, out = qrcode.QRCode(border=2), io.StringIO()
    code.add_data(address)
    code.print_ascii(out=out, invert=True)
    return out.getvalue()


def certificate(https: str, host: str) -> tuple[Path, Path, tempfile.TemporaryDirectory | None]:
    """Files of certificate and key.

    Args:
        https: ``adhoc`` makes a self-signed pair that lives as long as the process; otherwise
            ``CERT,KEY``, two PEM files.

    Returns:
        certificate, key, and the folder to keep alive (None for given files).

    Raises:
        ConfigError: a file is missing, or the text is neither.
    """
    if https == "adhoc":
        from werkzeug.serving import make_ssl_devcert

        folder = tempfile.TemporaryDirectory(prefix="liveness-tls-")
        name = lan_address() if host in ("0.0.0.0", "::", "") else host
        files = make_ssl_devcert(str(Path(folder.name) / "page"), host=name)
        return Path(files[0]), Path(files[1]), folder
    files = [Path(part).expanduser() for part in https.split(",")]
    if len(files) != 2 or not all(f.is_file() for f in files):
        raise ConfigError(f"--https {https}: give `adhoc`, or CERT,KEY as two PEM files that exist.")
    return files[0], files[1], None


def make_server(app: Flask, host: str, port: int, https: str = "", limits: Limits = LIMITS) -> Any:
    """A server that is bound but not yet running; `run` and `close` as below.

    Threads outnumber the line, so that a full line can still be told to those who come.

    Raises:
        ConfigError: the address is taken or the certificate cannot be used.
    """
    try:
        return _Secure(app, host, port, https, limits) if https else _Plain(app, host, port, limits)
    except OSError as error:  # ssl.SSLError is one too
        raise ConfigError(f"cannot serve on {host}:{port} ({error}); choose another --port or --https.") from error


class _Plain:
    """waitress."""

    def __init__(self, app: Flask, host: str, port: int, limits: Limits) -> None:
        from waitress import create_server

        # It warns of every request that waits for a thread, which a bounded line makes normal.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._server = create_server(
            app, host=host, port=port, threads=limits.queue + 8, connection_limit=200, channel_timeout=30,
            max_request_body_size=limits.body_bytes, max_request_header_size=16_384, ident=None,
            clear_untrusted_proxy_headers=True,
        )  # fmt: skip
        self.port = int(self._server.effective_port)

    def run(self) -> None:
        self._server.run()

    def close(self) -> None:
        self._server.close()


class _Secure:
    """cheroot with the standard library's TLS."""

    def __init__(self, app: Flask, host: str, port: int, https: str, limits: Limits) -> None:
        from cheroot import wsgi
        from cheroot.ssl.builtin import BuiltinSSLAdapter

        cert, key, self._folder = certificate(https, host)
        self._server = wsgi.Server(
            (host, port), app, numthreads=limits.queue + 8, max=limits.queue + 8, timeout=30, server_name="liveness"
        )
        self._server.max_request_body_size, self._server.max_request_header_size = limits.body_bytes, 16_384
        self._server.ssl_adapter = BuiltinSSLAdapter(str(cert), str(key))
        self._server.ssl_adapter.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server.prepare()
        self.port = int(self._server.bind_addr[1])

    def run(self) -> None:
        self._server.serve()

    def close(self) -> None:
        self._server.stop()
        if self._folder is not None:
            self._folder.cleanup()


def serve(
    bundle: str | Path,
    *,
    host: str = "",
    port: int = 8000,
    https: str = "",
    record: str | Path | None = None,
    require_imu: bool = False,
    names: tuple[str, ...] = (),
    camera: str | Path | None = None,
    teach: str | Path | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve the page until it is interrupted.

    Args:
        bundle: folder. host: to listen on; by default this machine only, with `https` every network.
        port: 0 takes a free one. https: see `certificate`. record, require_imu: see `create_app`.
        names: hosts beside bare addresses. camera: a taught camera's file, which judges.
        teach: file into which the page's visitors may teach: all of them, and who may teach may open the door. Without
            `https` only this machine reaches the page.
        say: takes lines for the person.

    Raises:
        BundleError, LandmarkError, CameraError: see `create_app`. ConfigError: see `make_server`.
    """
    from liveness_utils.web.app import create_app

    host = host or ("0.0.0.0" if https else "127.0.0.1")
    own = () if host in LOCAL else (socket.gethostname(), f"{socket.gethostname()}.local")
    app = create_app(
        bundle, record=record, require_imu=require_imu, hosts=(*names, *own, host), camera=camera, teach=teach
    )
    server = make_server(app, host, port, https)
    _announce(addresses(host, server.port, bool(https)), host, https, record, say, teach)
    try:
        server.run()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        server.close()
        app.extensions["liveness"].close()


def _announce(
    found: list[str], host: str, https: str, record: Any, say: Callable[[str], None], teach: Any = None
) -> None:
    say(qr_text(found[0]))
    say("Page at " + "  ".join(found) + "  (Ctrl-C stops)")
    if not https:
        reach = "this machine only" if host in LOCAL else "other machines, but without their cameras"
        say(f"Plain http reaches {reach}: a phone needs --https adhoc, or CERT,KEY.")
    if https == "adhoc":
        say("The certificate is self-signed: the browser warns once; go on to the page.")
    if record:
        say(f"Recording to {Path(record).expanduser().resolve()} where label and consent are given.")
    if teach:
        say(f"Every visitor may teach the camera into {Path(teach).expanduser().resolve()}, and so open the door.")
