"""Times for people."""


def duration(seconds: float) -> str:
    """``1.25 seconds``, ``3.4 minutes``, ``26.1 hours``."""
    if seconds < 100:
        return f"{seconds:.3g} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
