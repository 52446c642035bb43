"""What running out of memory looks like, on a GPU and on the CPU."""

import errno


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that memory ran out.

    By name, because torch is imported by those jobs only that need it.
    """
    while error is not None:
        if _says_so(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(
        words in message for words in ("out of memory", "can't allocate memory", "cannot allocate memory")
    )
