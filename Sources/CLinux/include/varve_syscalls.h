#ifndef VARVE_SYSCALLS_H
#define VARVE_SYSCALLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>

// openat2(2): flags of struct open_how.resolve (linux/openat2.h).
static const uint64_t VARVE_RESOLVE_NO_XDEV = 0x01;
static const uint64_t VARVE_RESOLVE_NO_MAGICLINKS = 0x02;
static const uint64_t VARVE_RESOLVE_NO_SYMLINKS = 0x04;
static const uint64_t VARVE_RESOLVE_BENEATH = 0x08;
static const uint64_t VARVE_RESOLVE_IN_ROOT = 0x10;

// Flags that glibc hides behind _GNU_SOURCE, which the Swift importer does not define.
static const int VARVE_O_PATH = 010000000;
static const int VARVE_O_TMPFILE = 020200000;
static const int VARVE_AT_EMPTY_PATH = 0x1000;
static const unsigned VARVE_RENAME_NOREPLACE = 1;
static const unsigned VARVE_RENAME_EXCHANGE = 2;

/// openat2(2). Returns a descriptor; retries EAGAIN, which a racing rename may cause under RESOLVE_IN_ROOT.
int varve_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);

/// statx(2) of `path` below `dirfd`, a symbolic link itself, or of `dirfd` where `path` is empty: what fstatat(2) says of it, and in
/// the same call `stx_mnt_id`, the number of the mount that the file was reached through (STATX_MNT_ID, Linux 5.8).
int varve_status_and_mount(int dirfd, const char *path, struct stat *status, uint64_t *mount);

/// renameat2(2).
int varve_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);

/// getdents64(2): fills `buffer` with struct linux_dirent64 records; returns bytes, 0 at the end.
ssize_t varve_getdents64(int fd, void *buffer, size_t size);

/// mknodat(2) with the device number given in two halves (mode holds S_IFCHR, S_IFBLK, S_IFIFO …).
int varve_mknodat(int dirfd, const char *name, mode_t mode, uint32_t major, uint32_t minor);
uint32_t varve_major(uint64_t device);
uint32_t varve_minor(uint64_t device);

/// ioctl_ficlonerange(2): shares the bytes [source_offset, +length) of `source`; length 0 means up to its end.
int varve_clone_range(int target, uint64_t target_offset, int source, uint64_t source_offset, uint64_t length);

/// fallocate(2); the modes are those of linux/falloc.h (1 KEEP_SIZE, 2 PUNCH_HOLE, 16 ZERO_RANGE).
int varve_fallocate(int fd, int mode, int64_t offset, int64_t length);

/// Puts this process, which must have one thread, into a user name space of its own in which its user and group keep
/// their numbers and nobody else has one (user_namespaces(7)): it has all capabilities over its own files then. All or
/// nothing: what cannot be done is tried in a child first.
int varve_enter_user_namespace(void);

/// pthread_setname_np(3) of the calling thread; a name of more than 15 bytes is not set.
void varve_name_thread(const char *name);

/// madvise(2), MADV_POPULATE_WRITE, of this program's variables that begin as zero: in one call rather than a fault for
/// nearly every page of them, as the Swift runtime keeps what it looked up there. Does nothing where the kernel cannot.
void varve_populate_variables(void);

/// sync_file_range(2) of the whole file: begins to write what is dirty, waits for nothing.
int varve_start_writing(int fd);

/// pidfd_open(2): readable when the process has ended.
int varve_pidfd_open(pid_t pid);

/// memfd_create(2) with MFD_CLOEXEC.
int varve_memfd(const char *name);

/// syncfs(2).
int varve_syncfs(int fd);

/// copy_file_range(2) at the offsets of both descriptors.
ssize_t varve_copy_file_range(int source, int target, size_t length);

/// fstatfs(2).f_type and the mount's flags (ST_NOATIME …, statfs(2)).
int varve_fstatfs(int fd, uint64_t *type, uint64_t *flags);

/// linux/magic.h, statfs(2).
static const uint64_t VARVE_BTRFS_SUPER_MAGIC = 0x9123683E;
static const uint64_t VARVE_ST_NOATIME = 0x0400;

/// fcntl(2), F_SETPIPE_SZ.
int varve_set_pipe_size(int fd, int bytes);
/// pipe2(2) with O_CLOEXEC.
int varve_pipe(int ends[2]);

#endif
