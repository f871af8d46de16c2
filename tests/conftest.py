"""What all tests share: the prepared base model, a dataset version with a clear voice, one real run, one real engine."""

pytest_plugins = ["tests.fixtures.models", "tests.fixtures.engines"]
