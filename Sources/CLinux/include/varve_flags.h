#ifndef VARVE_FLAGS_H
#define VARVE_FLAGS_H

#include <stdint.h>

// ioctl_iflags(2); statx(2) has the same values.
static const uint32_t VARVE_FLAG_IMMUTABLE = 0x10;
static const uint32_t VARVE_FLAG_APPEND = 0x20;

/// Takes away the flags of an open file that forbid to change or delete it (chattr(1), +i and +a): FS_IOC_GETFLAGS and
/// FS_IOC_SETFLAGS. Returns 1 if it had one, 0 if not. EPERM without CAP_LINUX_IMMUTABLE, ENOTTY where files have no flags.
int varve_clear_protection(int fd);

/// Which of these flags `name` in `directory` has, by statx(2): nothing is opened.
int varve_protection(int directory, const char *name, uint32_t *flags);

#endif
