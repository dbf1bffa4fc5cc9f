"""The commands of `imageclf`, a file each.

A command imports what it needs when it runs. It may import every wing.
"""
