/// What Swift cannot import by itself of Linux and glibc: system calls without a wrapper, macros, ioctls of loop devices.
/// Nothing here is of btrfs, and nothing needs a library beside glibc. Each function returns 0, a count or a descriptor,
/// or -1 with errno set.
#ifndef CLINUX_H
#define CLINUX_H

#include "varve_flags.h"
#include "varve_mount.h"
#include "varve_syscalls.h"

#endif
