#define _GNU_SOURCE
#include "varve_btrfs.h"

#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <string.h>
#include <sys/ioctl.h>

// The offsets at which Sources/VarveBtrfs reads items, kept here next to the kernel's own declarations.
_Static_assert(sizeof(struct btrfs_ioctl_search_key) == 104, "linux/btrfs.h");
_Static_assert(offsetof(struct btrfs_ioctl_search_args_v2, buf) == 112, "linux/btrfs.h");
_Static_assert(sizeof(struct btrfs_ioctl_search_header) == 32, "linux/btrfs.h");
_Static_assert(offsetof(struct btrfs_ioctl_search_header, objectid) == 8, "linux/btrfs.h");
_Static_assert(offsetof(struct btrfs_ioctl_search_header, offset) == 16, "linux/btrfs.h");
_Static_assert(offsetof(struct btrfs_ioctl_search_header, type) == 24, "linux/btrfs.h");
_Static_assert(offsetof(struct btrfs_ioctl_search_header, len) == 28, "linux/btrfs.h");

_Static_assert(sizeof(struct btrfs_inode_item) == 160, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, transid) == 8, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, size) == 16, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, nbytes) == 24, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, nlink) == 40, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, uid) == 44, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, gid) == 48, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, mode) == 52, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, rdev) == 56, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, flags) == 64, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, sequence) == 72, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, atime) == 112, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, ctime) == 124, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, mtime) == 136, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_item, otime) == 148, "linux/btrfs_tree.h");

_Static_assert(sizeof(struct btrfs_inode_ref) == 10, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_ref, name_len) == 8, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_extref, name_len) == 16, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_inode_extref, name) == 18, "linux/btrfs_tree.h");

_Static_assert(sizeof(struct btrfs_file_extent_item) == 53, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, ram_bytes) == 8, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, compression) == 16, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, encryption) == 17, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, other_encoding) == 18, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, type) == 20, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, disk_bytenr) == 21, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, disk_num_bytes) == 29, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, offset) == 37, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_file_extent_item, num_bytes) == 45, "linux/btrfs_tree.h");

_Static_assert(offsetof(struct btrfs_root_item, flags) == 208, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_root_item, refs) == 216, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_root_item, uuid) == 247, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_root_item, parent_uuid) == 263, "linux/btrfs_tree.h");
_Static_assert(sizeof(struct btrfs_dir_item) == 30, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_dir_item, data_len) == 25, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_dir_item, name_len) == 27, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_qgroup_status_item, flags) == 16, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_qgroup_info_item, rfer) == 8, "linux/btrfs_tree.h");
_Static_assert(offsetof(struct btrfs_qgroup_info_item, excl) == 24, "linux/btrfs_tree.h");
_Static_assert(BTRFS_QGROUP_STATUS_FLAG_ON == 1 && BTRFS_QGROUP_STATUS_FLAG_RESCAN == 2
    && BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT == 4, "linux/btrfs_tree.h");
_Static_assert(BTRFS_ROOT_TREE_OBJECTID == 1 && BTRFS_QUOTA_TREE_OBJECTID == 8 && BTRFS_XATTR_ITEM_KEY == 24
    && BTRFS_QGROUP_STATUS_KEY == 240 && BTRFS_QGROUP_INFO_KEY == 242, "linux/btrfs_tree.h");

_Static_assert(BTRFS_INODE_ITEM_KEY == 1 && BTRFS_INODE_REF_KEY == 12 && BTRFS_INODE_EXTREF_KEY == 13
    && BTRFS_EXTENT_DATA_KEY == 108 && BTRFS_ROOT_ITEM_KEY == 132, "linux/btrfs_tree.h");
_Static_assert(BTRFS_FILE_EXTENT_INLINE == 0 && BTRFS_FILE_EXTENT_REG == 1 && BTRFS_FILE_EXTENT_PREALLOC == 2,
    "linux/btrfs_tree.h");

int varve_btrfs_tree_search(int fd, const struct varve_search_range *range, void *buffer, size_t size) {
    struct btrfs_ioctl_search_args_v2 *args = buffer;
    memset(args, 0, sizeof(*args));
    args->key.tree_id = range->tree;
    args->key.min_objectid = range->first_object;
    args->key.min_type = range->first_type;
    args->key.min_offset = range->first_offset;
    args->key.max_objectid = range->last_object;
    args->key.max_type = range->last_type;
    args->key.max_offset = range->last_offset;
    args->key.min_transid = range->min_transid;
    args->key.max_transid = UINT64_MAX;
    args->key.nr_items = UINT32_MAX;
    args->buf_size = size - sizeof(*args);
    if (ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, args) < 0) return -1;
    return args->key.nr_items > INT32_MAX ? INT32_MAX : (int)args->key.nr_items;
}
