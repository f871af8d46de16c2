"""Adapters answered over HTTP, and compared."""
