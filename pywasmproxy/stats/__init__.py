"""Statistics: what is counted, under which names Envoy's users know it, and how it is written. No sockets.

Events add to plain numbers of slotted objects (`counts`, `histogram`) where they happen. Only who asks pays
for names: `server.measures` reads the objects of a running proxy into `Stat`s, `render` writes them down.
"""
