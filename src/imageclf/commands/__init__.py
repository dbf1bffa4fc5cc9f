"""The commands of `imageclf` that are large enough for a file of their own, one each."""


def examples(*lines: str) -> str:
    """Lines that Click shows as they are, below the options."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
