"""A search engine for Argilla inside Argilla's own SQL database, whose triggers keep its index, so it can't drift.

It runs inside Argilla's environment, not ours, so it imports nothing of this house and nothing here imports it.
Start it by putting a folder that holds only a copy of this package on PYTHONPATH:
`uvicorn argilla_search.server:app` is the server, `python -m argilla_search worker` is Argilla's command line.
Both need ARGILLA_SEARCH_ENGINE=sql.
"""
