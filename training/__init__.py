"""A dataset version and a config in, an adapter out. Nothing here imports torch but what runs in the child process."""
