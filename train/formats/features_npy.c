/* NumPy's format 1.0 (numpy.org, "numpy.lib.format"): magic, version, the header's length as u16, a Python
 * dictionary padded with spaces and ended by a line feed so that the data begin at a multiple of 64. */
#include "train/formats/features_private.h"

#include "data/files.h"
#include "data/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 128, PREFIX = 10 };
static const char MAGIC[] = "\x93NUMPY";

/* Leaves the stream behind the header. */
static void write_header(FILE *out, int64_t n, int64_t dim) {
    char header[HEADER + 1];
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", PREFIX); /* 0x76 = 128 - 10 */
    int used =
        snprintf(header + PREFIX, sizeof header - PREFIX,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRId64 ", %" PRId64 "), }", n, dim);
    memset(header + PREFIX + used, ' ', (size_t)(HEADER - PREFIX - used));
    header[HEADER - 1] = '\n';
    rewind(out);
    fwrite(header, 1, HEADER, out);
}

tw_status tw_npy_write(const char *path, const float *values, int64_t n, int64_t dim) {
    tw_atomic_file file;
    TRY(tw_atomic_file_open(&file, path));
    write_header(file.stream, n, dim);
    if (n > 0) fwrite(values, sizeof *values, (size_t)(n * dim), file.stream);
    return tw_atomic_file_commit(&file);
}

/* ---- reading ---- */

/* The value behind 'key': in the header's dictionary. */
static const char *value_of(const char *header, const char *key) {
    const char *at = strstr(header, key);
    if (!at) return "";
    at += strlen(key);
    return at + strspn(at, " :");
}

static tw_status parse_header(const char *path, const char *header, int64_t *n, int64_t *dim) {
    const char *type = value_of(header, "'descr'"), *shape = value_of(header, "'shape'");
    char *end = NULL;
    if (strncmp(type, "'<f4'", 5) != 0)
        return FAIL(TW_ERR_FORMAT, "%s holds values of type %.8s; only '<f4' (float32) is read", path, type);
    if (strncmp(value_of(header, "'fortran_order'"), "False", 5) != 0)
        return FAIL(TW_ERR_FORMAT, "%s is in Fortran order; save numpy.ascontiguousarray of it", path);
    bool good = *shape == '(' && shape[1] >= '0' && shape[1] <= '9';
    errno = 0;
    if (good) *n = strtoll(shape + 1, &end, 10), good = *end == ',';
    if (good) {
        const char *second = end + 1 + strspn(end + 1, " ");
        *dim = strtoll(second, &end, 10);
        good = end > second && errno == 0 && *n >= 0 && *dim >= 1 && end[strspn(end, " ,")] == ')';
    }
    int64_t bytes;
    if (!good || __builtin_mul_overflow(*n, *dim, &bytes) || __builtin_mul_overflow(bytes, 4, &bytes))
        return FAIL(TW_ERR_FORMAT, "%s has the shape %.40s; a table (n, dim) is needed", path, shape);
    return TW_OK;
}

static tw_status read_stream(FILE *in, const char *path, float **values, int64_t *n, int64_t *dim) {
    unsigned char prefix[12] = {0};
    char *header = NULL;
    struct stat info;
    tw_status status = TW_OK;
    if (fread(prefix, 1, PREFIX, in) != PREFIX || memcmp(prefix, MAGIC, 6) != 0)
        return FAIL(TW_ERR_FORMAT, "%s is not a .npy file, or is truncated", path);
    size_t size = (size_t)prefix[8] | (size_t)prefix[9] << 8;
    if (prefix[6] != 1) { /* 2.0 and 3.0 have a length of four bytes */
        if (fread(prefix + 10, 1, 2, in) != 2) return FAIL(TW_ERR_FORMAT, "%s is truncated", path);
        size |= (size_t)prefix[10] << 16 | (size_t)prefix[11] << 24;
    }
    if (size > 1 << 20) return FAIL(TW_ERR_FORMAT, "%s has an impossible header of %zu bytes", path, size);
    header = calloc(1, size + 1);
    if (!header) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    if (fread(header, 1, size, in) != size)
        status = FAIL(TW_ERR_FORMAT, "%s is truncated", path);
    else
        status = parse_header(path, header, n, dim);
    free(header);
    if (status != TW_OK) return status;
    size_t count = (size_t)(*n * *dim);
    /* Checked before the allocation: a damaged shape must not ask for terabytes. */
    if (fstat(fileno(in), &info) != 0) return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    int64_t left = (int64_t)info.st_size - (int64_t)ftell(in);
    if (left != (int64_t)(count * sizeof(float)))
        return FAIL(TW_ERR_FORMAT, "%s is %s: %lld bytes of values, %lld are expected", path,
                    left < (int64_t)(count * sizeof(float)) ? "truncated" : "longer than its header says",
                    (long long)left, (long long)(count * sizeof(float)));
    *values = malloc(count ? count * sizeof(float) : 1);
    if (!*values) return FAIL(TW_ERR_MEMORY, "%s: no memory for %zu values", path, count);
    if (fread(*values, sizeof(float), count, in) == count) return TW_OK;
    free(*values);
    *values = NULL;
    return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(errno));
}

tw_status tw_npy_read(const char *path, float **values, int64_t *n, int64_t *dim) {
    *values = NULL, *n = 0, *dim = 0;
    FILE *in;
    TRY(tw_open_stream(path, &in));
    tw_status status = read_stream(in, path, values, n, dim);
    fclose(in);
    return status;
}

/* ---- with ids beside it ---- */

static char *ids_path(const char *path) {
    size_t n = strlen(path) - strlen(".npy");
    char *out = malloc(n + sizeof ".ids.jsonl");
    if (out) sprintf(out, "%.*s.ids.jsonl", (int)n, path);
    return out;
}

static tw_status begin(tw_features_writer *w) {
    TRY(tw_atomic_file_open(&w->file, w->path));
    write_header(w->file.stream, 0, w->dim);
    return TW_OK;
}

static tw_status append(tw_features_writer *w, const tw_id *ids, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++) TRY(tw_id_list_add(&w->ids, &ids[i]));
    size_t count = (size_t)(n * w->dim);
    if (count && fwrite(values, sizeof *values, count, w->file.stream) != count)
        return FAIL(TW_ERR_IO, "cannot write %s: %s", w->path, strerror(errno));
    return TW_OK;
}

static tw_status write_ids(const tw_features_writer *w) {
    tw_atomic_file file;
    char *path = ids_path(w->path);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", w->path);
    tw_status status = tw_atomic_file_open(&file, path);
    free(path);
    if (status != TW_OK) return status;
    for (int64_t i = 0; i < w->ids.n && status == TW_OK; i++) {
        status = tw_id_print(file.stream, w->ids.text + w->ids.at[i], w->ids.integer[i]);
        fputc('\n', file.stream);
    }
    return tw_atomic_file_end(&file, status);
}

static tw_status commit(tw_features_writer *w) {
    TRY(write_ids(w));
    write_header(w->file.stream, w->n, w->dim);
    return tw_atomic_file_commit(&w->file);
}

static tw_status read_ids(tw_lines *lines, tw_id_list *list) {
    for (;;) {
        char *line, digits[32];
        size_t size;
        TRY(tw_lines_next(lines, &line, &size));
        if (!line) return TW_OK;
        json_t *value = json_loadb(line, size, JSON_DECODE_ANY, NULL);
        tw_id id = {.text = digits, .is_integer = json_is_integer(value)};
        if (json_is_integer(value))
            id.size = (size_t)sprintf(digits, "%lld", (long long)json_integer_value(value));
        else if (json_is_string(value))
            id.text = json_string_value(value), id.size = json_string_length(value);
        tw_status status = id.size == 0 || id.size > TW_ID_MAX_BYTES
                               ? FAIL(TW_ERR_FORMAT, "%s:%lld: is no id", tw_lines_path(lines),
                                      (long long)tw_lines_number(lines))
                               : tw_id_list_add(list, &id);
        json_decref(value);
        if (status != TW_OK) return status;
    }
}

static tw_status load(const char *path, tw_features *f) {
    TRY(tw_npy_read(path, &f->values, &f->n, &f->dim));
    tw_id_list list = {0};
    tw_lines *lines = NULL;
    char *beside = ids_path(path);
    if (!beside) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", path);
    tw_status status = TW_OK;
    if (access(beside, F_OK) != 0) goto done; /* another program's: rows without ids */
    status = tw_lines_open(beside, &lines);
    if (status == TW_OK) status = read_ids(lines, &list);
    if (status == TW_OK && list.n != f->n)
        status = FAIL(TW_ERR_FORMAT, "%s has %lld ids for %lld rows of %s", beside, (long long)list.n,
                      (long long)f->n, path);
    if (status == TW_OK) status = tw_id_list_move(&list, f);
done:
    tw_lines_close(lines);
    tw_id_list_free(&list);
    free(beside);
    return status;
}

const tw_features_format tw_features_npy = {{".npy", NULL}, begin, append, commit, load};
