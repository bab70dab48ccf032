"""Random and damaged modules over all of WebAssembly 3.0, compared with other implementations.

`campaign.py` looks for divergences with fresh seeds; `corpus.zip` holds the modules pinned from one such run
with the verdicts of the reference, which `test_pinned.py` checks without any other tool.
"""
