"""The production form of Argilla: it starts with secrets of one's own, or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCS = Path(__file__).parent.parent.parent / "docs"
TEXT = (DOCS / "argilla-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]


def test_all_parts_are_there() -> None:
    assert set(SERVICES) == {"server", "worker", "postgres", "elasticsearch", "redis"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_has_a_pinned_image_a_health_check_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+", service["image"])
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    for needed, how in service.get("depends_on", {}).items():
        assert needed in SERVICES
        assert how == {"condition": "service_healthy"}


def test_every_secret_is_asked_for_and_none_has_a_default() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", TEXT))
    assert set(re.findall(r"(?<!\$)\$\{?([A-Z_]+)", TEXT)) == asked
    lines = (DOCS / "argilla.env.example").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == {f"{name}=" for name in asked}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|API_KEY", name) or value.startswith("${")


def test_only_the_server_is_reached_from_outside_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"server": ["127.0.0.1:6900:6900"]}
