"""The machine: its cores, worker processes, child programs, progress bars.

It imports the ground alone.
"""
