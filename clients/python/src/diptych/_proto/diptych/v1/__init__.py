"""Generated stubs of diptych.v1."""
