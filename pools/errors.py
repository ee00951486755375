"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """Bad input. Its text says what was given, what was expected and what to do next, in one line.

    The command line prints it and exits with code 2; every other exception is a defect of ours.
    """
