"""One page a file: layout, handlers, wiring."""
