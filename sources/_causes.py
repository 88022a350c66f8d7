"""What led to an error."""


def causes_of(error: BaseException) -> list[BaseException]:
    """An error and what it came from, the innermost last; each once, even where one was raised again by its own outcome."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes
