#define _GNU_SOURCE
#include "varve_syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

_Static_assert(RESOLVE_NO_XDEV == 0x01, "openat2(2)");
_Static_assert(RESOLVE_NO_MAGICLINKS == 0x02, "openat2(2)");
_Static_assert(RESOLVE_NO_SYMLINKS == 0x04, "openat2(2)");
_Static_assert(RESOLVE_BENEATH == 0x08, "openat2(2)");
_Static_assert(RESOLVE_IN_ROOT == 0x10, "openat2(2)");
_Static_assert(O_PATH == 010000000, "open(2)");
_Static_assert(O_TMPFILE == 020200000, "open(2)");
_Static_assert(AT_EMPTY_PATH == 0x1000, "openat(2)");

int varve_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    int fd = -1;
    for (int attempt = 0; attempt < 64; attempt++) {
        fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) return fd;
    }
    return fd;
}

int varve_status_and_mount(int dirfd, const char *path, struct stat *status, uint64_t *mount) {
    struct statx found;
    int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    if (statx(dirfd, path, flags, STATX_BASIC_STATS | STATX_MNT_ID, &found) != 0) return -1;
    if ((found.stx_mask & STATX_MNT_ID) == 0) {
        errno = ENOSYS;
        return -1;
    }
    memset(status, 0, sizeof *status);
    status->st_dev = makedev(found.stx_dev_major, found.stx_dev_minor);
    status->st_ino = found.stx_ino;
    status->st_mode = found.stx_mode;
    status->st_nlink = found.stx_nlink;
    status->st_uid = found.stx_uid;
    status->st_gid = found.stx_gid;
    status->st_rdev = makedev(found.stx_rdev_major, found.stx_rdev_minor);
    status->st_size = (off_t)found.stx_size;
    status->st_blocks = (blkcnt_t)found.stx_blocks;
    status->st_atim = (struct timespec){found.stx_atime.tv_sec, found.stx_atime.tv_nsec};
    status->st_mtim = (struct timespec){found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec};
    status->st_ctim = (struct timespec){found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec};
    *mount = found.stx_mnt_id;
    return 0;
}

int varve_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    return renameat2(from_fd, from, to_fd, to, flags);
}

ssize_t varve_getdents64(int fd, void *buffer, size_t size) {
    return syscall(SYS_getdents64, fd, buffer, size);
}

int varve_mknodat(int dirfd, const char *name, mode_t mode, uint32_t major, uint32_t minor) {
    return mknodat(dirfd, name, mode, makedev(major, minor));
}

uint32_t varve_major(uint64_t device) { return major(device); }
uint32_t varve_minor(uint64_t device) { return minor(device); }

int varve_clone_range(int target, uint64_t target_offset, int source, uint64_t source_offset, uint64_t length) {
    struct file_clone_range range = {
        .src_fd = source, .src_offset = source_offset, .src_length = length, .dest_offset = target_offset};
    return ioctl(target, FICLONERANGE, &range);
}

int varve_fallocate(int fd, int mode, int64_t offset, int64_t length) {
    return fallocate(fd, mode, offset, length);
}

int varve_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int varve_memfd(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int varve_syncfs(int fd) { return syncfs(fd); }

ssize_t varve_copy_file_range(int source, int target, size_t length) {
    return copy_file_range(source, NULL, target, NULL, length, 0);
}

int varve_fstatfs(int fd, uint64_t *type, uint64_t *flags) {
    struct statfs info;
    if (fstatfs(fd, &info) != 0) return -1;
    *type = (uint64_t)(uint32_t)info.f_type;
    *flags = (uint64_t)info.f_flags;
    return 0;
}

int varve_set_pipe_size(int fd, int bytes) { return fcntl(fd, F_SETPIPE_SZ, bytes); }

int varve_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int varve_start_writing(int fd) { return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); }

void varve_name_thread(const char *name) { (void)pthread_setname_np(pthread_self(), name); }

void varve_populate_variables(void) {
    // Of the linker: what lies between them begins as zero.
    extern char __bss_start[], _end[];
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)__bss_start + page - 1) / page * page, end = (uintptr_t)_end / page * page;
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14
#endif
    if (start < end) (void)madvise((void *)start, end - start, MADV_POPULATE_WRITE);
}

static int write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t written = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return written == (ssize_t)strlen(text) ? 0 : -1;
}

static int enter_user_namespace(unsigned uid, unsigned gid) {
    char uids[64], gids[64];
    snprintf(uids, sizeof(uids), "%u %u 1", uid, uid);
    snprintf(gids, sizeof(gids), "%u %u 1", gid, gid);
    if (unshare(CLONE_NEWUSER) != 0) return -1;
    // Without privileges, groups may be mapped only when setgroups(2) is given up.
    if (write_file("/proc/self/setgroups", "deny") != 0 && errno != ENOENT) return -1;
    if (write_file("/proc/self/uid_map", uids) != 0) return -1;
    return write_file("/proc/self/gid_map", gids);
}

int varve_enter_user_namespace(void) {
    unsigned uid = geteuid(), gid = getegid();
    // A name space whose maps cannot be written is of no use and cannot be left again.
    pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) _exit(enter_user_namespace(uid, gid) == 0 ? 0 : errno & 0xff ? errno & 0xff : EPERM);
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) return -1;
    }
    if (status != 0) {
        errno = WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
        return -1;
    }
    return enter_user_namespace(uid, gid);
}
