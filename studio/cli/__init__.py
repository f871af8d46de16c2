"""The commands. What is heavy is imported inside the command that needs it, so that `--help` answers at once."""
