#ifndef VARVE_UUID_TREE_H
#define VARVE_UUID_TREE_H

#include "varve_btrfs.h"

/// The subvolume with that UUID, anywhere on the file system: a look-up in the UUID tree, then in the root tree.
/// Needs CAP_SYS_ADMIN. ENOENT if there is none.
int varve_btrfs_subvolume_by_uuid(int fd, const uint8_t *uuid, struct varve_subvolume_info *info);

#endif
