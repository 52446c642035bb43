"""What running out of memory looks like, on a GPU and on the CPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """By name, because torch is imported by those jobs only that need it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in message for words in ("out of memory", "can't allocate memory")
    )
