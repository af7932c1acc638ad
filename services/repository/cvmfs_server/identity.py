"""Names of processes that no later process of the same number shares, on one boot of a machine."""

__all__ = ["process_identity"]


def process_identity(pid: int) -> str | None:
    """Name a living process by its number and when it was started; nothing if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes between the opening and the reading
        return None
    state, start_time = fields[0], fields[19]
    return None if state in "ZX" else f"{pid}/{start_time}"
