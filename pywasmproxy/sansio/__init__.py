"""The sans-IO core: events in, commands out. No sockets, no clocks, no threads, no async in this package.

Read `events.py` and `commands.py` first, then `states.py` (what may follow what), `stream.py` (one exchange),
`chain.py` (the filters it runs through) and `router.py`.
"""
