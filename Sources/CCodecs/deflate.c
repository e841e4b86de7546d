#include "CCodecs.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { back_size = 64 * 1024 };

struct varve_deflater {
    struct libdeflate_compressor *compressor;
    /* Reads back what was deflated. */
    z_stream reader;
    int has_reader;
    unsigned char back[back_size];
};

varve_deflater *varve_deflate_new(int level)
{
    varve_deflater *deflater = calloc(1, sizeof *deflater);
    if (!deflater) {
        errno = ENOMEM;
        return NULL;
    }
    deflater->compressor = libdeflate_alloc_compressor(level);
    /* A negative number of window bits asks for raw deflate. */
    deflater->has_reader = inflateInit2(&deflater->reader, -15) == Z_OK;
    if (!deflater->compressor || !deflater->has_reader) {
        varve_deflate_free(deflater);
        errno = ENOMEM;
        return NULL;
    }
    return deflater;
}

void varve_deflate_free(varve_deflater *deflater)
{
    if (!deflater) return;
    if (deflater->has_reader) inflateEnd(&deflater->reader);
    libdeflate_free_compressor(deflater->compressor);
    free(deflater);
}

/* An empty stored block: three bits, which may begin another byte, and four bytes. */
enum { flush_size = 5 };

size_t varve_deflate_bound(varve_deflater *deflater, size_t in_count)
{
    return libdeflate_deflate_compress_bound(deflater->compressor, in_count) + flush_size;
}

/*
 * Inflates the whole stream at out, compares it with in, and finds, in bits from the start of out, where its last
 * block starts and ends. zlib.h, inflate(), Z_BLOCK: it returns behind each block, with the number of unused bits of
 * the last byte in the low bits of data_type, 64 in it in the last block and 128 between blocks.
 */
static int find_last_block(
    varve_deflater *deflater, const unsigned char *in, size_t in_count, const unsigned char *out,
    size_t out_count, size_t *start, size_t *end)
{
    z_stream *reader = &deflater->reader;
    if (inflateReset(reader) != Z_OK) return 0;
    reader->next_in = (Bytef *)out;
    reader->avail_in = (uInt)out_count;
    size_t compared = 0;
    *start = 0;
    for (;;) {
        size_t left = reader->avail_in;
        reader->next_out = deflater->back;
        reader->avail_out = back_size;
        if (inflate(reader, Z_BLOCK) != Z_OK) return 0;
        size_t count = back_size - reader->avail_out;
        if (count > in_count - compared || memcmp(in + compared, deflater->back, count) != 0) return 0;
        compared += count;
        if (reader->data_type & 128) {
            size_t position = 8 * (out_count - reader->avail_in) - (reader->data_type & 63);
            if (reader->data_type & 64) {
                *end = position;
                return compared == in_count && reader->avail_in == 0;
            }
            *start = position;
        } else if (count == 0 && reader->avail_in == left) {
            return 0;
        }
    }
}

int64_t varve_deflate_block(
    varve_deflater *deflater, const void *in, size_t in_count, int last, void *out, size_t out_count)
{
    if (in_count > UINT32_MAX || out_count > UINT32_MAX) {
        errno = EINVAL;
        return -1;
    }
    size_t count = out_count < flush_size
        ? 0
        : libdeflate_deflate_compress(deflater->compressor, in, in_count, out, out_count - flush_size);
    if (count == 0) {
        errno = ENOBUFS;
        return -1;
    }
    unsigned char *bytes = out;
    size_t start, end;
    if (!find_last_block(deflater, in, in_count, bytes, count, &start, &end)) {
        errno = EIO;
        return -1;
    }
    if (last) return (int64_t)count;

    /* RFC 1951, 3.2.3: a block starts with the bit that says whether it is the last one. */
    bytes[start / 8] &= (unsigned char)~(1u << start % 8);
    /* Then 00, stored, the rest of a byte, and the length 0 with its complement. Unused bits are 0 already. */
    if (8 * count - end < 3) bytes[count++] = 0;
    memcpy(bytes + count, "\0\0\xff\xff", 4);
    return (int64_t)(count + 4);
}

uint32_t varve_crc32_combine(uint32_t first, uint32_t second, uint64_t second_count)
{
    return (uint32_t)crc32_combine(first, second, (z_off_t)second_count);
}
