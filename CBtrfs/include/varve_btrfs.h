#ifndef VARVE_BTRFS_H
#define VARVE_BTRFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// BTRFS_IOC_FS_INFO: the UUID that all subvolumes and mounts of one btrfs share.
int varve_btrfs_filesystem_uuid(int fd, uint8_t *uuid);
/// The same call: bytes of a node or leaf of its trees.
int64_t varve_btrfs_node_size(int fd);

/// How a btrfs is filled, in bytes: of its devices, of those that no block group has, of the block groups for data and for metadata, and of
/// what the kernel keeps of the metadata for itself (BTRFS_IOC_SPACE_INFO, BTRFS_IOC_DEV_INFO). And how often a device failed
/// (BTRFS_IOC_GET_DEV_STATS). Needs no privilege.
struct varve_btrfs_usage {
    uint64_t size, unallocated, data_total, data_used, metadata_total, metadata_used, reserve, devices, errors;
};
int varve_btrfs_usage(int fd, struct varve_btrfs_usage *usage);

/// BTRFS_IOC_RESIZE of device 1.
int varve_btrfs_resize(int fd, uint64_t bytes);

/// What BTRFS_IOC_GET_SUBVOL_INFO says (struct btrfs_ioctl_get_subvol_info_args in linux/btrfs.h).
struct varve_subvolume_info {
    uint64_t id, parent_id, directory, generation, flags;
    uint8_t uuid[16], parent_uuid[16], received_uuid[16];
    uint64_t ctransid, otransid, stransid, rtransid;
    uint64_t ctime_seconds, otime_seconds, stime_seconds, rtime_seconds;
    uint32_t ctime_nanoseconds, otime_nanoseconds, stime_nanoseconds, rtime_nanoseconds;
};

/// 1 if the descriptor is on btrfs, 0 if not.
int varve_btrfs_is(int fd);

int varve_btrfs_subvolume_info(int fd, struct varve_subvolume_info *info);

/// FS_IOC_FIEMAP with FIEMAP_FLAG_SYNC: writes out what is buffered of a file, and returns 1 if all of its content lies in its metadata then
/// (one extent, FIEMAP_EXTENT_DATA_INLINE), else 0. Nothing waits for the disk where it does.
int varve_btrfs_is_inline(int fd);

/// BTRFS_IOC_SUBVOL_CREATE_V2 and BTRFS_IOC_SNAP_CREATE_V2. ENAMETOOLONG for a name of more than 255 bytes.
int varve_btrfs_create_subvolume(int directory, const char *name);
int varve_btrfs_snapshot(int source, int directory, const char *name, int read_only);

/// BTRFS_IOC_SNAP_DESTROY: the directory entry is gone when it returns, the space later.
int varve_btrfs_delete_subvolume(int directory, const char *name);

/// BTRFS_IOC_SUBVOL_GETFLAGS and SETFLAGS: 1 read-only, 0 not.
int varve_btrfs_get_read_only(int fd);
int varve_btrfs_set_read_only(int fd, int read_only);

/// One call of BTRFS_IOC_GET_SUBVOL_ROOTREF: up to 255 subvolumes with ids from `min_id` on that lie directly in the
/// subvolume of `fd`, with the inodes of their directories. Returns their count; *more says whether others follow.
static const int VARVE_ROOTREFS = 255;
int varve_btrfs_rootrefs(int fd, uint64_t min_id, uint64_t *ids, uint64_t *directories, int *more);

/// BTRFS_IOC_INO_LOOKUP_USER: the name of subvolume `id` in the directory `directory`, and the path of that directory
/// below `fd`, empty or with a closing slash. The buffers have room for 256 and 4096 bytes.
int varve_btrfs_lookup_user(int fd, uint64_t id, uint64_t directory, char *name, char *path);

/// BTRFS_IOC_START_SYNC and BTRFS_IOC_WAIT_SYNC.
int varve_btrfs_start_sync(int fd, uint64_t *transid);
int varve_btrfs_wait_sync(int fd, uint64_t transid);

/// Flags of BTRFS_IOC_SEND.
static const uint64_t VARVE_SEND_NO_FILE_DATA = 0x1;
static const uint64_t VARVE_SEND_OMIT_STREAM_HEADER = 0x2;
static const uint64_t VARVE_SEND_OMIT_END = 0x4;
static const uint64_t VARVE_SEND_VERSION = 0x8;
static const uint64_t VARVE_SEND_COMPRESSED = 0x10;

/// BTRFS_IOC_SEND: blocks until the whole stream is written to `output`.
int varve_btrfs_send(
    int subvolume, int output, uint64_t parent, const uint64_t *clone_sources, size_t clone_source_count,
    uint64_t flags, uint32_t version);

/// Sends a read-only subvolume as the difference to itself, `id` being its own, and throws the few bytes away (a header, one
/// command and the end, which fit into any pipe; one that is full would be EAGAIN). What counts is what the kernel does before
/// it sends anything: it writes out all buffered data of the subvolume and waits for it (`flush_delalloc_roots`, fs/btrfs/send.c,
/// since Linux 4.20).
int varve_btrfs_write_out(int subvolume, uint64_t id);

/// Bytes of the arguments before the items in the buffer of varve_btrfs_tree_search.
static const size_t VARVE_SEARCH_ITEMS = 112;

/// BTRFS_IOC_TREE_SEARCH_V2 over the keys (first…) to (last…), in leaves whose generation is at least `min_transid`.
/// `tree` 0 is the subvolume of `fd`. Returns the number of items, which begin at VARVE_SEARCH_ITEMS in `buffer`.
struct varve_search_range {
    uint64_t tree;
    uint64_t first_object, first_offset, last_object, last_offset;
    uint64_t min_transid;
    uint32_t first_type, last_type;
};
int varve_btrfs_tree_search(int fd, const struct varve_search_range *range, void *buffer, size_t size);

#endif
