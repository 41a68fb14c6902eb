"""Generated stubs of diptych.client.v1."""
