"""What the user got wrong, said in one sentence."""


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file, the field and the mend.

    The command line prints it alone and exits with 2; every other exception is a defect of the library.
    """
