"""``leash.py PARENT_PID COMMAND…``: becomes COMMAND, which the kernel kills when its parent ends, however that ends.

A file of its own, run by path, because the signal has to be asked for between fork and exec, and running Python code
there (``preexec_fn``) is not safe in a process with threads. Linux only; elsewhere the command runs without a leash.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent_pid:
            sys.exit("the parent ended before the leash was on")
    os.execvp(command[0], command)


main()
