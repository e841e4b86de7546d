#include "CCodecs.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>

/* The counters of ISA-L are 32 bits wide. */
static const size_t largest_run = (size_t)1 << 30;

static struct inflate_state *state_of(varve_inflater *inflater) { return (struct inflate_state *)inflater; }

varve_inflater *varve_inflate_new(void)
{
    struct inflate_state *state = malloc(sizeof *state);
    if (!state) {
        errno = ENOMEM;
        return NULL;
    }
    isal_inflate_init(state);
    return (varve_inflater *)state;
}

void varve_inflate_free(varve_inflater *inflater) { free(inflater); }

void varve_inflate_reset(varve_inflater *inflater)
{
    isal_inflate_reset(state_of(inflater));
    state_of(inflater)->crc_flag = ISAL_DEFLATE;
}

int varve_inflate(
    varve_inflater *inflater, const void *in, size_t in_count, int64_t *consumed, void *out,
    size_t *out_count)
{
    struct inflate_state *state = state_of(inflater);
    uint32_t in_size = (uint32_t)(in_count < largest_run ? in_count : largest_run);
    uint32_t out_size = (uint32_t)(*out_count < largest_run ? *out_count : largest_run);

    state->next_in = (uint8_t *)in;
    state->avail_in = in_size;
    state->next_out = out;
    state->avail_out = out_size;
    int result = isal_inflate(state);
    *consumed = (int64_t)in_size - (int64_t)state->avail_in;
    *out_count = out_size - state->avail_out;
    if (result < 0) return result;
    /* A raw stream without a dictionary gives nothing else; whatever it is, it must not pass for a success. */
    if (result != ISAL_DECOMP_OK && result != ISAL_END_INPUT && result != ISAL_OUT_OVERFLOW)
        return ISAL_INVALID_BLOCK;
    if (state->block_state != ISAL_BLOCK_FINISH) return varve_inflate_more;
    /*
     * Versions up to 2.32.0 leave whole bytes that lie behind the stream in the bit buffer; later ones take
     * them back themselves and leave none. The bits below a whole byte are the padding of the last byte of
     * the stream.
     */
    if (state->read_in_length > 0) *consumed -= state->read_in_length / 8;
    return varve_inflate_done;
}

const char *varve_inflate_error(int code)
{
    switch (code) {
    case ISAL_INVALID_BLOCK: return "invalid block";
    case ISAL_INVALID_SYMBOL: return "invalid symbol";
    case ISAL_INVALID_LOOKBACK: return "a distance reaches before the start";
    default: return "invalid deflate data";
    }
}

uint32_t varve_crc32(uint32_t crc, const void *bytes, size_t count)
{
    return count ? crc32_gzip_refl(crc, bytes, count) : crc;
}
