"""Generated stubs, in the folders of their proto files."""
