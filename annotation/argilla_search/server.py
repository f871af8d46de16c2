"""What uvicorn serves: Argilla's own application, which at its start asks for the engine registered here."""

from argilla_server import app as argilla

from . import engine  # noqa: F401 -- registers itself
from .timing import ServerTiming

app = ServerTiming(argilla)
