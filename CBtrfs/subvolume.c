#define _GNU_SOURCE
#include "varve_btrfs.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

_Static_assert(sizeof(struct btrfs_ioctl_get_subvol_info_args) == 504, "linux/btrfs.h");
_Static_assert(sizeof(struct btrfs_ioctl_vol_args_v2) == 4096, "linux/btrfs.h");
_Static_assert(sizeof(struct btrfs_ioctl_ino_lookup_user_args) == 4096, "linux/btrfs.h");
_Static_assert(BTRFS_MAX_ROOTREF_BUFFER_NUM == 255, "linux/btrfs.h");

int varve_btrfs_is(int fd) {
    struct statfs info;
    if (fstatfs(fd, &info) != 0) return -1;
    return (uint32_t)info.f_type == BTRFS_SUPER_MAGIC;
}

int varve_btrfs_subvolume_info(int fd, struct varve_subvolume_info *info) {
    struct btrfs_ioctl_get_subvol_info_args args;
    memset(&args, 0, sizeof(args));
    // Not "!= 0": the kernel returns what its search for the back reference did, and that is 1 where it succeeds.
    if (ioctl(fd, BTRFS_IOC_GET_SUBVOL_INFO, &args) < 0) return -1;
    info->id = args.treeid;
    info->parent_id = args.parent_id;
    info->directory = args.dirid;
    info->generation = args.generation;
    info->flags = args.flags;
    memcpy(info->uuid, args.uuid, 16);
    memcpy(info->parent_uuid, args.parent_uuid, 16);
    memcpy(info->received_uuid, args.received_uuid, 16);
    info->ctransid = args.ctransid;
    info->otransid = args.otransid;
    info->stransid = args.stransid;
    info->rtransid = args.rtransid;
    info->ctime_seconds = args.ctime.sec;
    info->otime_seconds = args.otime.sec;
    info->stime_seconds = args.stime.sec;
    info->rtime_seconds = args.rtime.sec;
    info->ctime_nanoseconds = args.ctime.nsec;
    info->otime_nanoseconds = args.otime.nsec;
    info->stime_nanoseconds = args.stime.nsec;
    info->rtime_nanoseconds = args.rtime.nsec;
    return 0;
}

static int set_name(char *field, const char *name) {
    size_t length = strlen(name);
    if (length > 255) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(field, name, length + 1);
    return 0;
}

int varve_btrfs_create_subvolume(int directory, const char *name) {
    struct btrfs_ioctl_vol_args_v2 args;
    memset(&args, 0, sizeof(args));
    if (set_name(args.name, name) != 0) return -1;
    return ioctl(directory, BTRFS_IOC_SUBVOL_CREATE_V2, &args);
}

int varve_btrfs_snapshot(int source, int directory, const char *name, int read_only) {
    struct btrfs_ioctl_vol_args_v2 args;
    memset(&args, 0, sizeof(args));
    if (set_name(args.name, name) != 0) return -1;
    args.fd = source;
    if (read_only) args.flags = BTRFS_SUBVOL_RDONLY;
    return ioctl(directory, BTRFS_IOC_SNAP_CREATE_V2, &args);
}

int varve_btrfs_delete_subvolume(int directory, const char *name) {
    struct btrfs_ioctl_vol_args args;
    memset(&args, 0, sizeof(args));
    if (set_name(args.name, name) != 0) return -1;
    return ioctl(directory, BTRFS_IOC_SNAP_DESTROY, &args);
}

int varve_btrfs_get_read_only(int fd) {
    uint64_t flags = 0;
    if (ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) < 0) return -1;
    return (flags & BTRFS_SUBVOL_RDONLY) != 0;
}

int varve_btrfs_set_read_only(int fd, int read_only) {
    uint64_t flags = 0;
    if (ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) < 0) return -1;
    uint64_t wanted = read_only ? flags | BTRFS_SUBVOL_RDONLY : flags & ~(uint64_t)BTRFS_SUBVOL_RDONLY;
    if (wanted == flags) return 0;
    return ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &wanted);
}

int varve_btrfs_rootrefs(int fd, uint64_t min_id, uint64_t *ids, uint64_t *directories, int *more) {
    struct btrfs_ioctl_get_subvol_rootref_args *args = calloc(1, sizeof(*args));
    if (args == NULL) return -1;
    args->min_treeid = min_id;
    *more = 0;
    int count = -1;
    int result = ioctl(fd, BTRFS_IOC_GET_SUBVOL_ROOTREF, args);
    // EOVERFLOW: the array is full, and there are more.
    if (result >= 0 || errno == EOVERFLOW) {
        *more = result < 0;
        count = args->num_items;
        for (int i = 0; i < count; i++) {
            ids[i] = args->rootref[i].treeid;
            directories[i] = args->rootref[i].dirid;
        }
    }
    int saved = errno;
    free(args);
    errno = saved;
    return count;
}

int varve_btrfs_lookup_user(int fd, uint64_t id, uint64_t directory, char *name, char *path) {
    struct btrfs_ioctl_ino_lookup_user_args args;
    memset(&args, 0, sizeof(args));
    args.treeid = id;
    args.dirid = directory;
    if (ioctl(fd, BTRFS_IOC_INO_LOOKUP_USER, &args) < 0) return -1;
    _Static_assert(sizeof(args.name) <= 256 && sizeof(args.path) <= 4096, "the caller's buffers");
    memcpy(name, args.name, sizeof(args.name));
    name[sizeof(args.name) - 1] = 0;
    memcpy(path, args.path, sizeof(args.path));
    path[sizeof(args.path) - 1] = 0;
    return 0;
}

int varve_btrfs_start_sync(int fd, uint64_t *transid) { return ioctl(fd, BTRFS_IOC_START_SYNC, transid); }

int varve_btrfs_wait_sync(int fd, uint64_t transid) { return ioctl(fd, BTRFS_IOC_WAIT_SYNC, &transid); }
