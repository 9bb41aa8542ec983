"""The truth about every job: its record, its payload waiting for a signature, its transaction in flight.

Redis alone holds it, and every change is one Lua script (``lua/``), fenced and repeatable.
"""
