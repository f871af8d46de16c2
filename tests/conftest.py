"""What all tests share: the base model, one real run, one real engine, a real studio and a real browser."""

import os

os.environ["COLUMNS"] = "200"  # what commands print is looked at, and should not be wrapped where a path is long
pytest_plugins = ["tests.fixtures.models", "tests.fixtures.engines", "tests.fixtures.studio", "tests.fixtures.argilla"]
