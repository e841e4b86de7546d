#ifndef VARVE_MOUNT_H
#define VARVE_MOUNT_H

#include <stdint.h>

// mount(2), umount2(2).
static const uint64_t VARVE_MS_RDONLY = 1;
static const uint64_t VARVE_MS_NOSUID = 2;
static const uint64_t VARVE_MS_NODEV = 4;
static const uint64_t VARVE_MS_NOEXEC = 8;
static const uint64_t VARVE_MS_REMOUNT = 32;
static const uint64_t VARVE_MS_NOATIME = 1024;
static const uint64_t VARVE_MS_BIND = 4096;
static const int VARVE_MNT_DETACH = 2;

/// Attaches the open file `image` to a free loop device (LOOP_CTL_GET_FREE, LOOP_CONFIGURE) with autoclear: the
/// kernel takes it apart when the last user closes it. Returns the device's descriptor, and its number.
int varve_loop_attach(int image, int read_only, int *number);

/// LOOP_SET_CAPACITY: the device gets the size that its file has now.
int varve_loop_fit(int device);

/// LOOP_GET_STATUS64: the file that the device shows, as stat(2) names it.
int varve_loop_file(int device, uint64_t *file_device, uint64_t *inode);

/// LOOP_CLR_FD: takes it apart now, or at the last close if it is in use.
int varve_loop_clear(int device);

/// mount(2) and umount2(2).
int varve_mount(const char *source, const char *target, const char *type, uint64_t flags, const char *options);
int varve_umount(const char *target, int flags);

#endif
