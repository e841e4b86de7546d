#include "varve_btrfs.h"

#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

int varve_btrfs_filesystem_uuid(int fd, uint8_t uuid[16]) {
    struct btrfs_ioctl_fs_info_args info;
    memset(&info, 0, sizeof(info));
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) != 0) return -1;
    memcpy(uuid, info.fsid, 16);
    return 0;
}

int64_t varve_btrfs_node_size(int fd) {
    struct btrfs_ioctl_fs_info_args info;
    memset(&info, 0, sizeof(info));
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) != 0) return -1;
    return info.nodesize;
}

int varve_btrfs_usage(int fd, struct varve_btrfs_usage *usage) {
    enum { SLOTS = 64 };
    union {
        struct btrfs_ioctl_space_args args;
        uint8_t room[sizeof(struct btrfs_ioctl_space_args) + SLOTS * sizeof(struct btrfs_ioctl_space_info)];
    } request;
    memset(&request, 0, sizeof(request));
    memset(usage, 0, sizeof(*usage));
    request.args.space_slots = SLOTS;
    if (ioctl(fd, BTRFS_IOC_SPACE_INFO, &request.args) != 0) return -1;
    uint64_t count = request.args.total_spaces < SLOTS ? request.args.total_spaces : SLOTS;
    for (uint64_t index = 0; index < count; index++) {
        const struct btrfs_ioctl_space_info *space = &request.args.spaces[index];
        if (space->flags & BTRFS_SPACE_INFO_GLOBAL_RSV) {
            usage->reserve += space->total_bytes;
        } else if (space->flags & BTRFS_BLOCK_GROUP_DATA) {
            usage->data_total += space->total_bytes;
            usage->data_used += space->used_bytes;
        } else if (space->flags & BTRFS_BLOCK_GROUP_METADATA) {
            usage->metadata_total += space->total_bytes;
            usage->metadata_used += space->used_bytes;
        }
    }
    struct btrfs_ioctl_fs_info_args info;
    memset(&info, 0, sizeof(info));
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) != 0) return -1;
    usage->devices = info.num_devices;
    // The numbers of devices have gaps where some were removed.
    for (uint64_t device = 1; device <= info.max_id; device++) {
        struct btrfs_ioctl_dev_info_args one;
        memset(&one, 0, sizeof(one));
        one.devid = device;
        if (ioctl(fd, BTRFS_IOC_DEV_INFO, &one) != 0) continue;
        usage->size += one.total_bytes;
        if (one.total_bytes > one.bytes_used) usage->unallocated += one.total_bytes - one.bytes_used;
        struct btrfs_ioctl_get_dev_stats errors;
        memset(&errors, 0, sizeof(errors));
        errors.devid = device;
        errors.nr_items = BTRFS_DEV_STAT_VALUES_MAX;
        if (ioctl(fd, BTRFS_IOC_GET_DEV_STATS, &errors) != 0) continue;
        for (int item = 0; item < BTRFS_DEV_STAT_VALUES_MAX; item++) usage->errors += errors.values[item];
    }
    return 0;
}

int varve_btrfs_resize(int fd, uint64_t bytes) {
    struct btrfs_ioctl_vol_args args;
    memset(&args, 0, sizeof(args));
    // Device 1: a file system that was made on one has no other.
    snprintf(args.name, sizeof(args.name), "1:%llu", (unsigned long long)bytes);
    return ioctl(fd, BTRFS_IOC_RESIZE, &args);
}

int varve_btrfs_is_inline(int fd) {
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
    } request;
    memset(&request, 0, sizeof(request));
    request.map.fm_length = FIEMAP_MAX_OFFSET;
    request.map.fm_flags = FIEMAP_FLAG_SYNC;
    request.map.fm_extent_count = 1;
    if (ioctl(fd, FS_IOC_FIEMAP, &request) != 0) return -1;
    const uint32_t whole = FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_LAST;
    return request.map.fm_mapped_extents == 1 && (request.map.fm_extents[0].fe_flags & whole) == whole;
}
