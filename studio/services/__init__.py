"""What pages and commands receive: one object, with a service for each concern."""

from studio.services.loop import NextStep, Overview, Services, open_services

__all__ = ["NextStep", "Overview", "Services", "open_services"]
