"""Measurements: `make bench` prints one table, each row with the limit or the peer it is held against."""
