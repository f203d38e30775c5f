"""The one error of the expression language."""


class ExpressionError(ValueError):
    """An expression that does not parse or means nothing; `position` is the 1-based column of the mistake."""

    def __init__(self, description: str, position: int) -> None:
        super().__init__(f"{description} (at column {position})")
        self.description = description
        self.position = position
