#include "CCodecs.h"

#include <errno.h>
#include <limits.h>
#include <zstd.h>
#include <zstd_errors.h>

_Static_assert(ZSTD_error_frameParameter_windowTooLarge == 16, "zstd_errors.h: stable numbers");
_Static_assert(ZSTD_error_checksum_wrong == 22, "zstd_errors.h: stable numbers");
_Static_assert(ZSTD_error_dictionary_wrong == 32, "zstd_errors.h: stable numbers");
_Static_assert(ZSTD_error_memory_allocation == 64, "zstd_errors.h: stable numbers");

static int status_of(size_t result)
{
    if (ZSTD_isError(result)) return -(int)ZSTD_getErrorCode(result);
    return result > INT_MAX ? INT_MAX : (int)result;
}

varve_zstd_decoder *varve_zstd_decoder_new(int window_log)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context) {
        errno = ENOMEM;
        return NULL;
    }
    if (ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, window_log))) {
        ZSTD_freeDCtx(context);
        errno = EINVAL;
        return NULL;
    }
    return (varve_zstd_decoder *)context;
}

void varve_zstd_decoder_free(varve_zstd_decoder *decoder) { ZSTD_freeDCtx((ZSTD_DCtx *)decoder); }

void varve_zstd_decoder_reset(varve_zstd_decoder *decoder)
{
    ZSTD_DCtx_reset((ZSTD_DCtx *)decoder, ZSTD_reset_session_only);
}

int varve_zstd_decode(
    varve_zstd_decoder *decoder, const void *in, size_t *in_count, void *out, size_t *out_count)
{
    ZSTD_inBuffer input = {in, *in_count, 0};
    ZSTD_outBuffer output = {out, *out_count, 0};
    size_t result = ZSTD_decompressStream((ZSTD_DCtx *)decoder, &output, &input);
    *in_count = input.pos;
    *out_count = output.pos;
    return status_of(result);
}

varve_zstd_encoder *varve_zstd_encoder_new(int level, int workers, int job_size)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (!context) {
        errno = ENOMEM;
        return NULL;
    }
    if (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level))
        || ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1))) {
        ZSTD_freeCCtx(context);
        errno = EINVAL;
        return NULL;
    }
    /* An error here means a libzstd without threads, which is slower but not wrong. */
    if (!ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, workers)))
        ZSTD_CCtx_setParameter(context, ZSTD_c_jobSize, job_size);
    return (varve_zstd_encoder *)context;
}

void varve_zstd_encoder_free(varve_zstd_encoder *encoder) { ZSTD_freeCCtx((ZSTD_CCtx *)encoder); }

int varve_zstd_encode(
    varve_zstd_encoder *encoder, const void *in, size_t *in_count, void *out, size_t *out_count, int end)
{
    ZSTD_inBuffer input = {in, *in_count, 0};
    ZSTD_outBuffer output = {out, *out_count, 0};
    size_t result =
        ZSTD_compressStream2((ZSTD_CCtx *)encoder, &output, &input, end ? ZSTD_e_end : ZSTD_e_continue);
    *in_count = input.pos;
    *out_count = output.pos;
    return status_of(result);
}

const char *varve_zstd_error(int code) { return ZSTD_getErrorString((ZSTD_ErrorCode)code); }
