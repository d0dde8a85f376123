"""The one error type that users see."""


class StylebotError(Exception):
    """Something that the user can fix: what is wrong, where, and what was wanted, in one line."""


class TrainingDiverged(StylebotError):
    """Training produced non-finite numbers for too long."""
