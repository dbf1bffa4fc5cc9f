"""The commands of `imageclf`, a file each, which imports what it needs when it runs."""

from pathlib import Path

from imageclf.files import UserError


def examples(*lines: str) -> str:
    """Lines that Click shows as they are, below the options."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def check_png(option: str, path: Path) -> None:
    """Refuse a figure that is to be written to a file of another kind."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{option} {path}: the figure is a PNG, so name it {path.stem}.png")
