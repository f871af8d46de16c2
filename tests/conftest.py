"""What all tests share: the base model, one real run, one real engine, a real studio and a real browser."""

pytest_plugins = ["tests.fixtures.models", "tests.fixtures.engines", "tests.fixtures.studio", "tests.fixtures.argilla"]
