#include "CCodecs.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

static z_stream *stream_of(varve_deflater *deflater) { return (z_stream *)deflater; }

varve_deflater *varve_deflate_new(int level)
{
    z_stream *stream = calloc(1, sizeof *stream);
    if (!stream) {
        errno = ENOMEM;
        return NULL;
    }
    /* A negative number of window bits asks for raw deflate; memory level 8 is zlib's default. */
    int result = deflateInit2(stream, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
    if (result != Z_OK) {
        free(stream);
        errno = result == Z_MEM_ERROR ? ENOMEM : EINVAL;
        return NULL;
    }
    return (varve_deflater *)stream;
}

void varve_deflate_free(varve_deflater *deflater)
{
    if (!deflater) return;
    deflateEnd(stream_of(deflater));
    free(deflater);
}

size_t varve_deflate_bound(varve_deflater *deflater, size_t in_count)
{
    /* deflateBound() counts one Z_FINISH; a flush adds an empty stored block and up to 7 bits before it. */
    return deflateBound(stream_of(deflater), in_count) + 16;
}

int64_t varve_deflate_block(
    varve_deflater *deflater, const void *dictionary, size_t dictionary_count, const void *in,
    size_t in_count, int last, void *out, size_t out_count)
{
    z_stream *stream = stream_of(deflater);
    if (dictionary_count > 32768 || in_count > UINT32_MAX || out_count > UINT32_MAX
        || deflateReset(stream) != Z_OK
        || (dictionary_count
            && deflateSetDictionary(stream, dictionary, (uInt)dictionary_count) != Z_OK)) {
        errno = EINVAL;
        return -1;
    }
    stream->next_in = (Bytef *)in;
    stream->avail_in = (uInt)in_count;
    stream->next_out = out;
    stream->avail_out = (uInt)out_count;
    int result = deflate(stream, last ? Z_FINISH : Z_SYNC_FLUSH);
    /* zlib.h: a flush is complete only if there is room left in the output. */
    int complete = last ? result == Z_STREAM_END : result == Z_OK && stream->avail_out > 0;
    if (!complete || stream->avail_in != 0) {
        errno = ENOBUFS;
        return -1;
    }
    return (int64_t)(out_count - stream->avail_out);
}

uint32_t varve_crc32_combine(uint32_t first, uint32_t second, uint64_t second_count)
{
    return (uint32_t)crc32_combine(first, second, (z_off_t)second_count);
}
