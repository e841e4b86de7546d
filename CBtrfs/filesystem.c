#include "varve_btrfs.h"

#include <linux/btrfs.h>
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
