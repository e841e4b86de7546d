#define _GNU_SOURCE
#include "varve_uuid_tree.h"

#include <btrfsutil.h>
#include <endian.h>
#include <errno.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <string.h>
#include <sys/ioctl.h>

int varve_btrfs_subvolume_by_uuid(int fd, const uint8_t uuid[16], struct varve_subvolume_info *info) {
    // The key is the UUID itself: its first half the object id, its second half the offset (fs/btrfs/uuid-tree.c).
    uint64_t halves[2];
    memcpy(halves, uuid, 16);
    struct btrfs_ioctl_search_args args;
    memset(&args, 0, sizeof(args));
    args.key.tree_id = BTRFS_UUID_TREE_OBJECTID;
    args.key.min_objectid = args.key.max_objectid = le64toh(halves[0]);
    args.key.min_type = args.key.max_type = BTRFS_UUID_KEY_SUBVOL;
    args.key.min_offset = args.key.max_offset = le64toh(halves[1]);
    args.key.max_transid = UINT64_MAX;
    args.key.nr_items = 1;
    if (ioctl(fd, BTRFS_IOC_TREE_SEARCH, &args) != 0) return -1;
    struct btrfs_ioctl_search_header header;
    memcpy(&header, args.buf, sizeof(header));
    if (args.key.nr_items == 0 || header.len < sizeof(uint64_t)) {
        errno = ENOENT;
        return -1;
    }
    uint64_t id;
    memcpy(&id, args.buf + sizeof(header), sizeof(id));

    struct btrfs_util_subvolume_info found;
    if (btrfs_util_subvolume_info_fd(fd, le64toh(id), &found) != BTRFS_UTIL_OK) return -1;
    if (memcmp(found.uuid, uuid, 16) != 0) {
        errno = ENOENT;
        return -1;
    }
    memset(info, 0, sizeof(*info));
    info->id = found.id;
    info->parent_id = found.parent_id;
    info->directory = found.dir_id;
    info->generation = found.generation;
    info->flags = found.flags;
    memcpy(info->uuid, found.uuid, 16);
    memcpy(info->parent_uuid, found.parent_uuid, 16);
    memcpy(info->received_uuid, found.received_uuid, 16);
    info->ctransid = found.ctransid;
    info->otransid = found.otransid;
    info->stransid = found.stransid;
    info->rtransid = found.rtransid;
    info->ctime_seconds = (uint64_t)found.ctime.tv_sec;
    info->otime_seconds = (uint64_t)found.otime.tv_sec;
    info->ctime_nanoseconds = (uint32_t)found.ctime.tv_nsec;
    info->stime_seconds = (uint64_t)found.stime.tv_sec;
    info->rtime_seconds = (uint64_t)found.rtime.tv_sec;
    info->otime_nanoseconds = (uint32_t)found.otime.tv_nsec;
    info->stime_nanoseconds = (uint32_t)found.stime.tv_nsec;
    info->rtime_nanoseconds = (uint32_t)found.rtime.tv_nsec;
    return 0;
}
