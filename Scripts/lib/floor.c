// The floor of the unpack benchmark: the files of decompressed layers, held in memory, written into one directory in
// the fewest system calls that make them, with no digest, no whiteout and no care for what a hostile layer could do.
// Prints the microseconds from the first system call to the end of syncfs(2).
//
//   cc -O2 -pthread -o floor floor.c -lisal -lcrypto && ./floor DIRECTORY LAYER.tar… [-- BLOB.gz…]
//
// With blobs, it also does what an unpack has to do with these before it may believe them: two threads beside read each
// once, inflate it with ISA-L, and take the SHA-256 of what went in and of what came out. Nothing is handed from one thread
// to another, nobody waits, both cores are busy, and the time is that until all are done: the least in which two cores can
// unpack the image with these libraries.
//
// It trusts its input, which Scripts/make-image made: never use it for anything else.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static void check(long result, const char *what, const char *name) {
    if (result < 0) {
        fprintf(stderr, "floor: %s %s: %s\n", what, name, strerror(errno));
        exit(1);
    }
}

static uint64_t octal(const char *field, int width) {
    uint64_t value = 0;
    for (int i = 0; i < width && field[i] >= '0' && field[i] <= '7'; i++) value = value * 8 + (field[i] - '0');
    return value;
}

struct pending {
    char *path;
    struct timespec time;
    struct pending *next;
};

static int root, parent = -1;
static char parent_path[4096];
static struct pending *directories;

// The directory of `path`, open; *name is what follows it.
static int directory_of(const char *path, const char **name) {
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length == 0) return root;
    if (parent >= 0 && strlen(parent_path) == length && memcmp(parent_path, path, length) == 0) return parent;
    if (parent >= 0) close(parent);
    memcpy(parent_path, path, length);
    parent_path[length] = 0;
    parent = openat(root, parent_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    check(parent, "open", parent_path);
    return parent;
}

static void extract(const char *tar, size_t size) {
    char path[4200], target[4200];
    const char *attributes[64], *values[64];
    size_t value_sizes[64];
    int attribute_count = 0;
    long pax_nanoseconds = 0;
    int64_t pax_seconds = -1;
    path[0] = target[0] = 0;
    for (size_t offset = 0; offset + 512 <= size && tar[offset];) {
        const char *header = tar + offset;
        uint64_t length = octal(header + 124, 12);
        const char *data = header + 512;
        offset += 512 + (length + 511) / 512 * 512;
        char type = header[156];
        if (type == 'x') {
            for (const char *record = data; record < data + length;) {
                char *end;
                size_t record_length = strtoul(record, &end, 10);
                const char *key = end + 1, *equals = strchr(key, '='), *value = equals + 1;
                size_t value_length = record + record_length - 1 - value;
                if (!strncmp(key, "path=", 5)) memcpy(path, value, value_length), path[value_length] = 0;
                if (!strncmp(key, "linkpath=", 9)) memcpy(target, value, value_length), target[value_length] = 0;
                if (!strncmp(key, "mtime=", 6)) {
                    pax_seconds = strtoll(value, &end, 10);
                    pax_nanoseconds = 0;
                    long unit = 100000000;
                    if (*end == '.')
                        for (end++; *end >= '0' && *end <= '9'; end++, unit /= 10) pax_nanoseconds += (*end - '0') * unit;
                }
                if (!strncmp(key, "SCHILY.xattr.", 13) && attribute_count < 64) {
                    attributes[attribute_count] = strndup(key + 13, equals - key - 13);
                    values[attribute_count] = value;
                    value_sizes[attribute_count++] = value_length;
                }
                record += record_length;
            }
            continue;
        }
        if (!path[0]) snprintf(path, sizeof path, "%.100s", header);
        if (!target[0]) snprintf(target, sizeof target, "%.100s", header + 157);
        size_t path_length = strlen(path);
        while (path_length && path[path_length - 1] == '/') path[--path_length] = 0;
        mode_t mode = octal(header + 100, 8);
        uid_t uid = octal(header + 108, 8);
        gid_t gid = octal(header + 116, 8);
        struct timespec time = {pax_seconds >= 0 ? pax_seconds : (int64_t)octal(header + 136, 12),
                                pax_seconds >= 0 ? pax_nanoseconds : 0};
        const struct timespec times[2] = {time, time};
        const char *name;
        int at = strcmp(path, ".") && path[0] ? directory_of(path, &name) : -1;
        if (at >= 0 && strncmp(name, ".wh.", 4)) {
            if (type == '5') {
                if (mkdirat(at, name, mode) < 0 && errno != EEXIST) check(-1, "mkdir", path);
                if (uid || gid) check(fchownat(at, name, uid, gid, 0), "chown", path);
                struct pending *later = malloc(sizeof *later);
                *later = (struct pending){strdup(path), time, directories};
                directories = later;
            } else if (type == '2') {
                if (symlinkat(target, at, name) < 0) {
                    unlinkat(at, name, 0);
                    check(symlinkat(target, at, name), "symlink", path);
                }
                check(utimensat(at, name, times, AT_SYMLINK_NOFOLLOW), "utimens", path);
            } else if (type == '1') {
                if (linkat(root, target, at, name, 0) < 0) {
                    unlinkat(at, name, 0);
                    check(linkat(root, target, at, name, 0), "link", path);
                }
            } else {
                int file = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
                if (file < 0 && errno == EEXIST) {
                    unlinkat(at, name, 0);
                    file = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
                }
                check(file, "create", path);
                for (uint64_t done = 0; done < length;) {
                    ssize_t count = write(file, data + done, length - done);
                    check(count, "write", path);
                    done += count;
                }
                if (uid || gid) check(fchown(file, uid, gid), "chown", path);
                for (int i = 0; i < attribute_count; i++)
                    check(fsetxattr(file, attributes[i], values[i], value_sizes[i], 0), "setxattr", path);
                check(futimens(file, times), "utimens", path);
                close(file);
            }
        }
        path[0] = target[0] = 0;
        attribute_count = 0;
        pax_seconds = -1;
    }
}

enum { piece = 256 << 10, beside = 2 };

static char **blobs;
static int blob_count, next_blob;

static EVP_MD_CTX *sha256(void) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    check(context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) ? 0 : -1, "hash", "SHA-256");
    return context;
}

// Says whether the digest in hexadecimal is the name of the blob, as in an image layout.
static int is_named(const char *path, EVP_MD_CTX *context) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned count = 0;
    char text[2 * EVP_MAX_MD_SIZE + 1] = "";
    EVP_DigestFinal_ex(context, digest, &count);
    for (unsigned i = 0; i < count; i++) sprintf(text + 2 * i, "%02x", digest[i]);
    const char *slash = strrchr(path, '/');
    return !strcmp(text, slash ? slash + 1 : path);
}

static void verify(const char *path, unsigned char *in, unsigned char *out) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    check(file, "open", path);
    EVP_MD_CTX *blob = sha256(), *diff_id = sha256();
    struct inflate_state state;
    isal_inflate_init(&state);
    state.crc_flag = ISAL_GZIP;
    state.avail_in = 0;
    while (state.block_state != ISAL_BLOCK_FINISH) {
        if (!state.avail_in) {
            ssize_t count = read(file, in, piece);
            errno = EIO;
            check(count > 0 ? 0 : -1, "read", path);
            EVP_DigestUpdate(blob, in, count);
            state.next_in = in;
            state.avail_in = count;
        }
        state.next_out = out;
        state.avail_out = piece;
        errno = EBADMSG;
        check(isal_inflate(&state) == ISAL_DECOMP_OK ? 0 : -1, "inflate", path);
        EVP_DigestUpdate(diff_id, out, piece - state.avail_out);
    }
    close(file);
    unsigned char unused[EVP_MAX_MD_SIZE];
    EVP_DigestFinal_ex(diff_id, unused, NULL);
    errno = EBADMSG;
    check(is_named(path, blob) ? 0 : -1, "verify", path);
    EVP_MD_CTX_free(blob);
    EVP_MD_CTX_free(diff_id);
}

static void *verify_blobs(void *unused) {
    unsigned char *in = malloc(piece), *out = malloc(piece);
    for (;;) {
        int index = __atomic_fetch_add(&next_blob, 1, __ATOMIC_RELAXED);
        if (index >= blob_count) break;
        verify(blobs[index], in, out);
    }
    free(in);
    free(out);
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--")) {
            blobs = argv + i + 1;
            blob_count = argc - i - 1;
            argc = i;
        }
    umask(0);
    char **tars = calloc(argc, sizeof *tars);
    size_t *sizes = calloc(argc, sizeof *sizes);
    for (int i = 2; i < argc; i++) {
        int file = open(argv[i], O_RDONLY | O_CLOEXEC);
        check(file, "open", argv[i]);
        struct stat status;
        check(fstat(file, &status), "stat", argv[i]);
        sizes[i] = status.st_size;
        tars[i] = mmap(NULL, sizes[i], PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
        check(tars[i] == MAP_FAILED ? -1 : 0, "map", argv[i]);
        close(file);
    }
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pthread_t threads[beside];
    for (int i = 0; blob_count && i < beside; i++) {
        errno = pthread_create(&threads[i], NULL, verify_blobs, NULL);
        check(errno ? -1 : 0, "start", "a thread");
    }
    root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(root, "open", argv[1]);
    for (int i = 2; i < argc; i++) extract(tars[i], sizes[i]);
    for (; directories; directories = directories->next) {
        const struct timespec times[2] = {directories->time, directories->time};
        check(utimensat(root, directories->path, times, 0), "utimens", directories->path);
    }
    check(syncfs(root), "sync", argv[1]);
    for (int i = 0; blob_count && i < beside; i++) pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%lld\n", (long long)(end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
    return 0;
}
