/// The ioctls of btrfs, whose macros Swift cannot import. Each function returns 0, a count or a descriptor, or -1 with
/// errno set.
#ifndef CBTRFS_H
#define CBTRFS_H

#include "varve_btrfs.h"
#include "varve_uuid_tree.h"

#endif
