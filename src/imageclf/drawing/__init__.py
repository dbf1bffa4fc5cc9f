"""Plots and the frame of HTML pages, for every report.

The content of a report belongs to the wing that writes it. It imports no other wing.
"""
