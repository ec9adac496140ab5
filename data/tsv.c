#include "data/tsv.h"

#include "data/base64.h"

#include <stdlib.h>
#include <string.h>

struct tw_tsv {
    tw_lines *lines;
    uint8_t *bytes;
    size_t capacity;
};

tw_status tw_tsv_open(const char *path, tw_tsv **out) {
    *out = NULL;
    tw_tsv *tsv = calloc(1, sizeof *tsv);
    if (!tsv) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    tw_status status = tw_lines_open(path, &tsv->lines);
    if (status) {
        free(tsv);
        return status;
    }
    *out = tsv;
    return TW_OK;
}

void tw_tsv_close(tw_tsv *tsv) {
    if (!tsv) return;
    tw_lines_close(tsv->lines);
    free(tsv->bytes);
    free(tsv);
}

const tw_lines *tw_tsv_lines(const tw_tsv *tsv) {
    return tsv->lines;
}

static tw_status reserve(tw_tsv *tsv, size_t size) {
    if (size <= tsv->capacity) return TW_OK;
    free(tsv->bytes);
    tsv->capacity = 0;
    tsv->bytes = malloc(size + size / 2);
    if (!tsv->bytes) return FAIL(TW_ERR_MEMORY, "no memory for an image of %zu bytes", size);
    tsv->capacity = size + size / 2;
    return TW_OK;
}

/* Python's line.strip(), for the ASCII white space that can stand there. */
static void trim(char **text, size_t *size) {
    while (*size > 0 && strchr(" \t\r\v\f", (*text)[*size - 1]) && (*text)[*size - 1]) (*size)--;
    while (*size > 0 && strchr(" \r\v\f", **text) && **text) {
        (*text)++;
        (*size)--;
    }
}

static tw_status parse(tw_tsv *tsv, char *line, size_t size, tw_tsv_image *out, tw_bad_kind *bad) {
    trim(&line, &size);
    *bad = TW_BAD_LINE;
    char *tab = memchr(line, '\t', size);
    if (!tab) return FAIL(TW_ERR_FORMAT, "no tab between image id and base64");
    *tab = '\0';
    *bad = TW_BAD_ID;
    char *id = line;
    size_t id_size = (size_t)(tab - line);
    trim(&id, &id_size);
    id[id_size] = '\0';
    TRY(tw_id_from_text(id, id_size, &out->id));
    if (tw_id_is_reserved(id, id_size))
        return FAIL(TW_ERR_FORMAT, "'%s' cannot be an image id: the LMDB keeps that key for itself", id);
    out->base64 = tab + 1;
    out->base64_bytes = (size_t)(line + size - out->base64);
    *bad = TW_BAD_BASE64;
    if (out->base64_bytes == 0) return FAIL(TW_ERR_FORMAT, "image %s: no base64 after the tab", out->id.text);
    tw_status status = reserve(tsv, tw_base64_decoded_bound(out->base64_bytes));
    if (status) {
        *bad = TW_BAD_NONE;
        return status;
    }
    status = tw_base64_decode(out->base64, out->base64_bytes, tsv->bytes, &out->size);
    if (status) return tw_fail_context(status, "image %s", out->id.text);
    out->data = tsv->bytes;
    *bad = TW_BAD_NONE;
    return TW_OK;
}

tw_status tw_tsv_next(tw_tsv *tsv, tw_tsv_image *out, bool *end, tw_bad_kind *bad) {
    *out = (tw_tsv_image){0};
    *end = false;
    *bad = TW_BAD_NONE;
    char *line;
    size_t size;
    do {
        TRY(tw_lines_next(tsv->lines, &line, &size));
        if (!line) {
            *end = true;
            return TW_OK;
        }
    } while (tw_lines_is_blank(line, size));
    tw_status status = parse(tsv, line, size, out, bad);
    if (status)
        return tw_fail_context(status, "%s:%lld", tw_lines_path(tsv->lines),
                               (long long)tw_lines_number(tsv->lines));
    return TW_OK;
}
