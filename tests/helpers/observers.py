"""What only watches a training, and what does nothing in its place."""

# Modules that cannot change a bit of what the train stage writes: none of them is a dep of it.
OBSERVERS = {"tracking/display", "tracking/live", "tracking/messages"}
# What ends the process of a stage or keeps it waiting: it cannot change what any stage writes.
GUARDS = {"project/processes"}
# A module of which every name is something that can be called, entered and asked, and does nothing.
NOTHING = """
class Nothing:
    def __call__(self, *arguments, **options):
        return self

    def __getattr__(self, name):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Nothing()
"""
