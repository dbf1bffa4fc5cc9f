"""Plots and the frame of HTML pages: what every report is drawn with.

What a report says belongs to the wing that says it. It imports no other wing.
"""
