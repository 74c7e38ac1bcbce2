"""Runs one Postgres program as a user it accepts and bound to the life of the process that started it.

Started as a script in a fresh interpreter (``python -I -S _launch.py …``), never imported: nothing but the standard library,
and no code of ours between fork and exec of the process that calls it.

    _launch.py PARENT_PID IDENTITY CHOWN_FD PROGRAM ARGUMENT…

IDENTITY is ``same``, ``user:UID:GID`` (becomes that user) or ``namespace`` (an own user namespace in which root appears
as an ordinary user, because Postgres refuses to run as root). CHOWN_FD is a file descriptor the program re-opens by
/dev/fd, or -1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NAMESPACE_ID = 1000
EXIT_NO_NAMESPACE = 97
EXIT_ORPHANED = 98


def _enter_namespace(libc: ctypes.CDLL) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        sys.stderr.write(f"cannot make a user namespace: {os.strerror(ctypes.get_errno())}\n")
        sys.exit(EXIT_NO_NAMESPACE)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NAMESPACE_ID} {uid} 1"),
        ("gid_map", f"{NAMESPACE_ID} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _become(uid: int, gid: int, chown_fd: int) -> None:
    if chown_fd >= 0:
        os.fchown(chown_fd, uid, gid)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main(arguments: list[str]) -> None:
    parent_pid, identity, chown_fd, program = int(arguments[0]), arguments[1], int(arguments[2]), arguments[3]
    libc = ctypes.CDLL(None, use_errno=True)
    if identity == "namespace":
        _enter_namespace(libc)
    elif identity != "same":
        _, uid, gid = identity.split(":")
        _become(int(uid), int(gid), chown_fd)
    if sys.platform == "linux":
        # After the change of user, which would clear it again.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(EXIT_ORPHANED)
    os.umask(0o077)
    os.execv(program, arguments[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
