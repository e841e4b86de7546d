#define _GNU_SOURCE
#include "varve_btrfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

_Static_assert(sizeof(struct btrfs_ioctl_send_args) == 72, "linux/btrfs.h");
_Static_assert(BTRFS_IOC_SEND == 0x40489426, "linux/btrfs.h");
_Static_assert(BTRFS_SEND_FLAG_NO_FILE_DATA == 0x1, "linux/btrfs.h");
_Static_assert(BTRFS_SEND_FLAG_OMIT_STREAM_HEADER == 0x2, "linux/btrfs.h");
_Static_assert(BTRFS_SEND_FLAG_OMIT_END_CMD == 0x4, "linux/btrfs.h");
_Static_assert(BTRFS_SEND_FLAG_VERSION == 0x8, "linux/btrfs.h");
_Static_assert(BTRFS_SEND_FLAG_COMPRESSED == 0x10, "linux/btrfs.h");

int varve_btrfs_send(
    int subvolume, int output, uint64_t parent, const uint64_t *clone_sources, size_t clone_source_count,
    uint64_t flags, uint32_t version) {
    struct btrfs_ioctl_send_args args;
    memset(&args, 0, sizeof(args));
    args.send_fd = output;
    args.clone_sources_count = clone_source_count;
    args.clone_sources = (__u64 *)clone_sources;
    args.parent_root = parent;
    args.flags = flags;
    args.version = version;
    return ioctl(subvolume, BTRFS_IOC_SEND, &args);
}

int varve_btrfs_write_out(int subvolume, uint64_t id) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
    int result = varve_btrfs_send(subvolume, ends[1], id, NULL, 0, BTRFS_SEND_FLAG_NO_FILE_DATA, 1);
    int reason = errno;
    close(ends[0]);
    close(ends[1]);
    errno = reason;
    return result;
}
