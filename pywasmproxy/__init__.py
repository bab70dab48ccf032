"""The Envoy-shaped part: filter chains, adapters and the reverse proxy. Layer 3; imports `abi`.

Names are resolved on first use, so that `import pywasmproxy` stays cheap.
"""

from __future__ import annotations
