#define _GNU_SOURCE
#include "varve_flags.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

_Static_assert(VARVE_FLAG_IMMUTABLE == FS_IMMUTABLE_FL, "ioctl_iflags(2)");
_Static_assert(VARVE_FLAG_APPEND == FS_APPEND_FL, "ioctl_iflags(2)");
_Static_assert(STATX_ATTR_IMMUTABLE == FS_IMMUTABLE_FL && STATX_ATTR_APPEND == FS_APPEND_FL, "statx(2)");

int varve_clear_protection(int fd) {
    int flags = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return -1;
    if (!(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))) return 0;
    flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0 ? 1 : -1;
}

int varve_protection(int directory, const char *name, uint32_t *flags) {
    struct statx status;
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &status) != 0) return -1;
    *flags = (uint32_t)(status.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND));
    return 0;
}
