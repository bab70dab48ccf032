"""The reverse proxy on asyncio: sockets around the sans-IO core. Nothing here decides what a filter means.

Reading order: `codec` (bytes to events), `wire` (values to bytes), `upstream` (clusters, pools),
`exchange` (one request through the core), `listener` (client connections), `proxy` (all of it wired up).
"""

from __future__ import annotations
