"""The one exception that people are meant to read."""


class InputError(ValueError):
    """Input that its giver can mend; the message is one sentence that says how.

    Commands print it without a stack trace and exit with status 2. Everything else that goes wrong is a defect
    and keeps its trace.
    """
