"""Chat logs of other systems, read into our own types; foreign column names are known in this folder only."""
