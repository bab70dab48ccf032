"""A pytest plug-in for `scripts/mutants.py`: property tests fail at once and alike every time.

Only whether a test fails matters there, so hypothesis does not look for a smaller example.
"""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "no-shrinking", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None, deadline=None
)
