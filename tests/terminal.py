"""A stream that is shown as it is written."""

import io


class Terminal(io.StringIO):
    """Says that it is one, and keeps what is written."""

    def isatty(self) -> bool:
        return True
