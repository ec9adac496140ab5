/* HDF5, wrapped: the only place of the project (h5.c, h5_data.c) that includes hdf5.h.
 *
 * Files are written under a temporary name, sealed (seal.h), synced and renamed, and are checked as a whole
 * before HDF5 sees a byte. Every data set has fletcher32. HDF5 is not thread-safe: a mutex inside lets any
 * thread call. Its errors become tw_status with HDF5's innermost message. Layout: library bounds V110, so
 * HDF5 1.10 and later read what any version wrote. The same calls give the same bytes: no times are kept. */
#ifndef TW_TRAIN_FORMATS_H5_H
#define TW_TRAIN_FORMATS_H5_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tw_h5 tw_h5;

enum { TW_H5_MAX_DIMS = 4, TW_H5_ATTRIBUTE_BYTES = 4096 };

/* "1.10.8", of the library in use. */
const char *tw_h5_library_version(void);

/* ---- files ---- */

/* Begins a new file of this kind ("checkpoint", "features"; < 32 bytes). Nothing is seen at `path` before
 * tw_h5_commit. The root gets attributes "format" = "tuwen <kind>" and "format_version" = version. */
tw_status tw_h5_create(const char *path, const char *kind, int version, tw_h5 **out) TW_MUST_CHECK;
/* Bytes of memory that a reader will want, told to it by the seal (seal.h). To be called before tw_h5_commit.
 */
void tw_h5_tell_memory(tw_h5 *f, uint64_t bytes);
/* Flushes, seals, syncs, renames; frees f in every case. On failure the temporary is removed and an older
 * file at the path is intact. */
tw_status tw_h5_commit(tw_h5 *f) TW_MUST_CHECK;
/* Opens a sealed file for reading after checking every byte of it. TW_ERR_FORMAT: not of this kind,
 * truncated, damaged. TW_ERR_UNSUPPORTED: a format_version above `version`. */
tw_status tw_h5_open(const char *path, const char *kind, int version, tw_h5 **out) TW_MUST_CHECK;
/* Closes a file opened for reading; removes one that was created and not committed. f may be NULL. */
void tw_h5_close(tw_h5 *f);
/* The path as given. Valid until f is freed. */
const char *tw_h5_path(const tw_h5 *f);
/* The size of a file opened for reading. */
int64_t tw_h5_file_bytes(const tw_h5 *f);

/* ---- attributes of the root group; text is fixed-length UTF-8, at most TW_H5_ATTRIBUTE_BYTES ---- */

tw_status tw_h5_set_i64(tw_h5 *f, const char *name, int64_t value) TW_MUST_CHECK;
tw_status tw_h5_set_u64(tw_h5 *f, const char *name, uint64_t value) TW_MUST_CHECK;
tw_status tw_h5_set_f64(tw_h5 *f, const char *name, double value) TW_MUST_CHECK;
/* NULL writes nothing. */
tw_status tw_h5_set_text(tw_h5 *f, const char *name, const char *text) TW_MUST_CHECK;
/* TW_ERR_FORMAT when the attribute is missing or of another type. */
tw_status tw_h5_get_i64(tw_h5 *f, const char *name, int64_t *value) TW_MUST_CHECK;
tw_status tw_h5_get_u64(tw_h5 *f, const char *name, uint64_t *value) TW_MUST_CHECK;
tw_status tw_h5_get_f64(tw_h5 *f, const char *name, double *value) TW_MUST_CHECK;
/* *text is to be freed by the caller; NULL when the attribute is missing. */
tw_status tw_h5_get_text(tw_h5 *f, const char *name, char **text) TW_MUST_CHECK;

/* ---- groups and data sets; `name` is a path such as "params/visual.proj" ---- */

tw_status tw_h5_make_group(tw_h5 *f, const char *name) TW_MUST_CHECK;
/* The names in a group, in the order of their creation: *count strings in one block, to be freed by the
 * caller with one free(*names). A missing group has 0. */
tw_status tw_h5_list(tw_h5 *f, const char *group, char ***names, int64_t *count) TW_MUST_CHECK;
bool tw_h5_has(tw_h5 *f, const char *name);

/* A byte string of any length as one fixed-length UTF-8 element. NULL writes nothing. */
tw_status tw_h5_write_bytes(tw_h5 *f, const char *name, const void *data, size_t size) TW_MUST_CHECK;
/* *data is to be freed by the caller, with a NUL behind its *size bytes; NULL when there is no such data
 * set. */
tw_status tw_h5_read_bytes(tw_h5 *f, const char *name, char **data, size_t *size) TW_MUST_CHECK;

/* data: f32, row-major, shape[0] x ... x shape[ndim - 1], 0 <= ndim <= 4, every side >= 1. ndim 0 is one
 * value (stored with one side of 1 and an attribute "scalar"). */
tw_status tw_h5_write_f32(tw_h5 *f, const char *name, int ndim, const int64_t *shape,
                          const float *data) TW_MUST_CHECK;
/* What tw_h5_write_f32 was told. TW_ERR_NOT_FOUND if there is no such data set, TW_ERR_FORMAT if it is not
 * f32, lies in another file (a link) or says that it is larger than 2 x the file + 1 MiB. */
tw_status tw_h5_shape(tw_h5 *f, const char *name, int *ndim, int64_t shape[TW_H5_MAX_DIMS]) TW_MUST_CHECK;
/* Reads the whole data set of exactly `count` values. */
tw_status tw_h5_read_f32(tw_h5 *f, const char *name, float *data, int64_t count) TW_MUST_CHECK;
/* Values [first, first + count), in row-major order. Of what tw_h5_write_f32 wrote only the chunks that hold
 * them are read, each whole for its checksum. TW_ERR_SHAPE: they are not all there. */
tw_status tw_h5_read_f32_range(tw_h5 *f, const char *name, int64_t first, float *data,
                               int64_t count) TW_MUST_CHECK;

/* ---- tables that grow, for features ---- */

/* Makes an empty f32 data set (0, dim) that takes rows at its end, in blocks of block_rows. */
tw_status tw_h5_make_rows(tw_h5 *f, const char *name, int64_t dim, int64_t block_rows) TW_MUST_CHECK;
/* Appends values (n, dim); fastest in whole blocks. */
tw_status tw_h5_append_rows(tw_h5 *f, const char *name, const float *values, int64_t n) TW_MUST_CHECK;
/* n integers; n fixed-length UTF-8 strings of `width` bytes each, zero-padded. */
tw_status tw_h5_write_i64s(tw_h5 *f, const char *name, const int64_t *values, int64_t n) TW_MUST_CHECK;
tw_status tw_h5_write_texts(tw_h5 *f, const char *name, const char *texts, int64_t n,
                            size_t width) TW_MUST_CHECK;
/* Either of the two: *values (n integers) or *texts (n times *width bytes), to be freed by the caller, the
 * other NULL. TW_ERR_FORMAT when it does not hold exactly n. */
tw_status tw_h5_read_list(tw_h5 *f, const char *name, int64_t n, int64_t **values, char **texts,
                          size_t *width) TW_MUST_CHECK;

#endif
