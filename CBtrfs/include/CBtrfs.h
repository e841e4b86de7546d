/// Everything that Swift cannot import by itself: system calls that glibc does not wrap, ioctls whose macros the
/// importer drops, and libbtrfsutil. Each function returns 0, a count or a descriptor, or -1 with errno set.
#ifndef CBTRFS_H
#define CBTRFS_H

#include "varve_syscalls.h"
#include "varve_btrfs.h"
#include "varve_uuid_tree.h"

#endif
