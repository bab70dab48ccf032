"""What was worked out about a module in earlier processes: that it is valid, its segments, translated code.

`folder.py` keeps files safely, `entry.py` knows what is in one, `segments.py` puts data segments together.
"""
