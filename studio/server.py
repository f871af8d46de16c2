"""`tonesmith up`: the page at once, the engine beside it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import webbrowser
from types import FrameType
from typing import TYPE_CHECKING

from annotation.errors import UserError
from studio.cli.context import out
from studio.settings import Settings

if TYPE_CHECKING:
    from studio.services import Services


def serve(settings: Settings, demo: bool = False, open_browser: bool = False) -> None:
    """Start everything and stay until interrupted. Raises UserError for a port that is taken."""
    listener = _listen(settings.host, settings.port)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    import uvicorn  # these take seconds to import, and the port should be refused before

    from studio.app import web_app
    from studio.demo_project import seed
    from studio.services import open_services

    services = open_services(settings)
    if demo and seed(services.store):
        out.print(
            "The demo project is filled: real requests, the base model's own replies, a starter set of 60 corrections."
        )
    config = uvicorn.Config(web_app(services), log_level="warning", timeout_graceful_shutdown=3)
    services.serving.start()
    services.argilla.start()
    services.drawing.start()
    services.judge_runner.start()
    address = f"http://{'localhost' if settings.host in ('127.0.0.1', '0.0.0.0') else settings.host}:{settings.port}"
    url = f"{address}/welcome/{_sign_in_link(services)}"
    out.print(
        f"\n  Tonesmith is at [bold]{address}[/]\n  Signed in at once, this time only: [bold]{url}[/]\n"
        f"  The project is in {settings.home}\n  Ctrl-C stops it.\n",
        soft_wrap=True,
    )
    if open_browser:
        threading.Timer(1.0, webbrowser.open, [url]).start()
    signal.signal(signal.SIGTERM, _leave)  # uvicorn hands the signal on when it is done; the engine must stop too
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        services.close(stop_engine=True)


def _sign_in_link(services: Services) -> str:
    """A token for whoever started the studio; the first start makes them the first admin."""
    people = services.store.people
    admins = [person.name for person in people.all() if person.role == "admin" and person.active]
    if not admins:
        admins = [people.add(services.who.name, "admin").name]
    return people.open_session(services.who.name if services.who.name in admins else admins[0], "link")


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"Port {port} on {host} can't be used: {error.strerror}.",
            "A free port.",
            f"Stop what runs there, or choose another: `tonesmith up --port {port + 1 if port < 65535 else 7860}`.",
        ) from error
    return listener
