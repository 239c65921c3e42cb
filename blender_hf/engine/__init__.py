"""The engine: items in, rankings and fusions out. It knows no file, no Hub and no command line."""
