/* What h5.c and h5_data.c share. */
#ifndef TW_TRAIN_FORMATS_H5_PRIVATE_H
#define TW_TRAIN_FORMATS_H5_PRIVATE_H

#include "train/formats/h5.h"

#include <hdf5.h>

struct tw_h5 {
    hid_t id;
    char *path, *temp; /* temp: NULL when opened for reading */
    char kind[32];
    int fd;              /* keeps the checked file open while HDF5 reads it; -1 when writing */
    uint32_t memory_mib; /* see tw_h5_tell_memory */
    int64_t base;        /* what HDF5's addresses of chunks count from; -1: not known yet */
};

/* HDF5 has one error stack and no locks of its own: held around every group of its calls. */
void tw_h5_lock(void);
void tw_h5_unlock(void);
/* Makes an error of HDF5's newest one: "PATH: cannot DOING NAME: <innermost message>". TW_ERR_IO when the
 * system refused, else TW_ERR_LIBRARY. Call it with the lock held. */
tw_status tw_h5_error(const tw_h5 *f, const char *doing, const char *name) TW_MUST_CHECK;

/* Keeps HDF5's error for the next tw_h5_error: the next call of HDF5, closing something even, forgets it. */
void tw_h5_keep_error(void);
/* A fixed-length UTF-8 type of `size` bytes (at least 1), to be closed with H5Tclose; -1 on failure. */
hid_t tw_h5_text_type(size_t size);

/* Opens a data set; -1 with *status set to TW_ERR_NOT_FOUND if there is none, TW_ERR_FORMAT if it (or one
 * chunk) claims more than 2 x the file + 1 MiB, or lies in another file. */
hid_t tw_h5_open_data(tw_h5 *f, const char *name, tw_status *status);
/* False if a part of the values was never written: HDF5 would read zeros in its place. */
bool tw_h5_is_whole(hid_t data);
/* Creates a data set in chunks with a checksum each; its creation time is not kept. -1 on failure. limit: as
 * H5Screate_simple. */
hid_t tw_h5_create_data(tw_h5 *f, const char *name, hid_t type, int ndim, const hsize_t *shape,
                        const hsize_t *limit, const hsize_t *chunk);

/* How an array lies in chunks that are contiguous in memory. */
typedef struct tw_h5_walk {
    int cut;                      /* the side that is cut; those before it have chunks of 1 */
    hsize_t before, side, inside; /* product of the sides before it; itself; product of those behind it */
    hsize_t step, parts;          /* the chunk's length along it; how many chunks that makes */
} tw_h5_walk;

/* One of its chunks: where it lies among them, and the values of the array that it holds. */
typedef struct tw_h5_chunk {
    hsize_t at[TW_H5_MAX_DIMS];
    int64_t first, count; /* a chunk at the edge is stored whole: more than these */
} tw_h5_chunk;

/* Chunk i of 0 <= i < before * parts, in the order of memory. */
tw_h5_chunk tw_h5_chunk_at(const tw_h5_walk *w, const hsize_t *shape, hsize_t i);
/* The number of the chunk that has this value. */
hsize_t tw_h5_chunk_of(const tw_h5_walk *w, int64_t value);

enum { TW_H5_CHECK_BYTES = 4 }; /* fletcher32, behind each chunk's values */

/* Values [first, first + count) of an array, within it and at least one. */
typedef struct tw_h5_range {
    int64_t first, count;
} tw_h5_range;

/* Reads the chunks of a range past HDF5, straight to their places, several threads side by side, and compares
 * their checksums. False if one is not as expected, values are then undefined: HDF5 finds out what is wrong.
 */
bool tw_h5_read_direct(tw_h5 *f, hid_t data, const hsize_t *shape, const tw_h5_walk *w, tw_h5_range range,
                       float *values);

/* An integer attribute of a data set; false on failure. */
bool tw_h5_set_mark(hid_t data, const char *name, int64_t value);
/* Its value; `missing` if there is none, -1 if it cannot be read. */
int64_t tw_h5_get_mark(hid_t data, const char *name, int64_t missing);

#endif
