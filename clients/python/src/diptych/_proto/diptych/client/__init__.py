"""Generated stubs of what the client reads of other protocols."""
