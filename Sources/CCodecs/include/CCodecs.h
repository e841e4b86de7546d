#ifndef CCODECS_H
#define CCODECS_H

/*
 * What the codecs need of ISA-L, libdeflate, zlib and libzstd. Every function works on the state that it is given and on
 * nothing else, so that different states may be used by different threads at once.
 */

#include <stddef.h>
#include <stdint.h>

/* ---- Inflate, RFC 1951 (ISA-L, isa-l/igzip_lib.h) ---------------------------------------------------- */

/* struct inflate_state */
typedef struct varve_inflater varve_inflater;

static const int varve_inflate_more = 0;
static const int varve_inflate_done = 1;

/* A state ready for a raw deflate stream, or NULL with errno ENOMEM. */
varve_inflater *varve_inflate_new(void);
void varve_inflate_free(varve_inflater *inflater);
/* Makes the state ready for another stream. */
void varve_inflate_reset(varve_inflater *inflater);

/*
 * Inflates from in to out. On entry *out_count says how much room there is, on return how much was written;
 * *consumed says how far in was read. ISA-L reads up to 8 bytes ahead: when the stream ends, *consumed is
 * where it ends, which may be up to 8 bytes before in (a negative number), in bytes that were given in an
 * earlier call. Returns varve_inflate_more, varve_inflate_done after the last block, or an error of ISA-L
 * (negative). At most 1 GiB of each buffer is looked at in one call.
 */
int varve_inflate(
    varve_inflater *inflater, const void *in, size_t in_count, int64_t *consumed, void *out,
    size_t *out_count);

/* What an error of varve_inflate means; never NULL. */
const char *varve_inflate_error(int code);

/* ---- CRC-32 of gzip (ISA-L computes, zlib combines) -------------------------------------------------- */

/* The CRC-32 of RFC 1952 continued over bytes; 0 to start. */
uint32_t varve_crc32(uint32_t crc, const void *bytes, size_t count);
/* The CRC-32 of two runs joined, the second one being second_count bytes long. */
uint32_t varve_crc32_combine(uint32_t first, uint32_t second, uint64_t second_count);

/* ---- Deflate, RFC 1951 (libdeflate deflates, zlib reads back) ---------------------------------------- */

typedef struct varve_deflater varve_deflater;

/* A state for raw deflate at level 0 to 12, or NULL with errno ENOMEM. */
varve_deflater *varve_deflate_new(int level);
void varve_deflate_free(varve_deflater *deflater);
/* The most bytes that varve_deflate_block can write for in_count bytes. */
size_t varve_deflate_bound(varve_deflater *deflater, size_t in_count);

/*
 * Deflates one run of bytes, which refers to none before it. libdeflate writes whole streams; the output is one that
 * another can follow: the mark of its last block is taken away, and an empty stored block ends it at a byte boundary,
 * like Z_SYNC_FLUSH of zlib. If last is not 0, it ends the stream. What was deflated before with this state has no
 * influence. The output is inflated and compared with the input. Returns the bytes written, or -1 with errno ENOBUFS
 * if they do not fit, EINVAL if the counts are above 2^32 - 1, and EIO if what was written is not what was read.
 */
int64_t varve_deflate_block(
    varve_deflater *deflater, const void *in, size_t in_count, int last, void *out, size_t out_count);

/* ---- Zstandard, RFC 8878 (libzstd) ------------------------------------------------------------------- */

/* ZSTD_DCtx */
typedef struct varve_zstd_decoder varve_zstd_decoder;
/* ZSTD_CCtx */
typedef struct varve_zstd_encoder varve_zstd_encoder;

/* Errors are returned as these numbers, negated (zstd_errors.h). */
static const int varve_zstd_window_too_large = 16;
static const int varve_zstd_checksum_wrong = 22;
static const int varve_zstd_dictionary_wrong = 32;
static const int varve_zstd_memory_allocation = 64;

/* A decoder that refuses windows above 2^window_log bytes, or NULL with errno ENOMEM. */
varve_zstd_decoder *varve_zstd_decoder_new(int window_log);
void varve_zstd_decoder_free(varve_zstd_decoder *decoder);
/* Makes the decoder ready for another frame; parameters stay. */
void varve_zstd_decoder_reset(varve_zstd_decoder *decoder);

/*
 * ZSTD_decompressStream: counts as in varve_inflate. Returns 0 at the end of a frame that is wholly written
 * out, a positive number when there is more to do, a negated error otherwise.
 */
int varve_zstd_decode(
    varve_zstd_decoder *decoder, const void *in, size_t *in_count, void *out, size_t *out_count);

/*
 * An encoder at level, with a content checksum in each frame, that works on jobs of job_size bytes (0:
 * libzstd chooses) with that many worker threads. A libzstd built without threads works in the caller's. NULL
 * with errno ENOMEM or, where libzstd refuses a parameter, EINVAL.
 */
varve_zstd_encoder *varve_zstd_encoder_new(int level, int workers, int job_size);
/* Stops and joins its worker threads. */
void varve_zstd_encoder_free(varve_zstd_encoder *encoder);

/*
 * ZSTD_compressStream2: counts as in varve_inflate. With end not 0 the frame is closed. Returns 0 when all is
 * written out, a positive number when it is not, a negated error otherwise.
 */
int varve_zstd_encode(
    varve_zstd_encoder *encoder, const void *in, size_t *in_count, void *out, size_t *out_count, int end);

/* What a (positive) error number means; never NULL. */
const char *varve_zstd_error(int code);

#endif
