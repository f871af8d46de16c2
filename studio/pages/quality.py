"""Stub while building."""

from studio.parts import shell
from studio.services import Services


def build(services: Services) -> None:
    shell.header(services, "quality")
    shell.title("quality", "")
