#define _GNU_SOURCE
#include "varve_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

_Static_assert(1 == MS_RDONLY, "mount(2)");
_Static_assert(2 == MS_NOSUID, "mount(2)");
_Static_assert(4 == MS_NODEV, "mount(2)");
_Static_assert(8 == MS_NOEXEC, "mount(2)");
_Static_assert(1024 == MS_NOATIME, "mount(2)");
_Static_assert(4096 == MS_BIND, "mount(2)");
_Static_assert(32 == MS_REMOUNT, "mount(2)");
_Static_assert(2 == MNT_DETACH, "umount2(2)");

int varve_loop_attach(int image, int read_only, int *number) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) return -1;
    int device = -1, saved = EBUSY;
    // Between GET_FREE and CONFIGURE another process may take the same device: EBUSY, and the next one is tried.
    for (int attempt = 0; attempt < 256; attempt++) {
        int free_number = ioctl(control, LOOP_CTL_GET_FREE);
        if (free_number < 0) {
            saved = errno;
            break;
        }
        char path[32];
        snprintf(path, sizeof(path), "/dev/loop%d", free_number);
        device = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (device < 0) {
            saved = errno;
            if (saved == ENOENT || saved == ENXIO || saved == EBUSY) {
                usleep(1000);
                continue;
            }
            break;
        }
        struct loop_config config;
        memset(&config, 0, sizeof(config));
        config.fd = (unsigned)image;
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
            *number = free_number;
            close(control);
            return device;
        }
        saved = errno;
        close(device);
        device = -1;
        if (saved != EBUSY && saved != EAGAIN) break;
        usleep(1000);
    }
    close(control);
    errno = saved;
    return -1;
}

int varve_loop_fit(int device) { return ioctl(device, LOOP_SET_CAPACITY, 0); }

int varve_loop_file(int device, uint64_t *file_device, uint64_t *inode) {
    struct loop_info64 info;
    if (ioctl(device, LOOP_GET_STATUS64, &info) != 0) return -1;
    *file_device = info.lo_device;
    *inode = info.lo_inode;
    return 0;
}

int varve_loop_clear(int device) { return ioctl(device, LOOP_CLR_FD, 0); }

int varve_mount(const char *source, const char *target, const char *type, uint64_t flags, const char *options) {
    return mount(source, target, type, (unsigned long)flags, options);
}

int varve_umount(const char *target, int flags) { return umount2(target, flags); }
