"""What goes wrong in the lab, said in words a person can act on."""


class LabProblem(Exception):  # noqa: N818
    """The lab cannot do what was asked; the message names the way out."""
