"""How fast the engines are, ours and others' beside it: `python -m benchmarks.run`."""
