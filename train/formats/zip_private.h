/* What zip.c (entries) and zip_directory.c (the directory) share. */
#ifndef TW_TRAIN_FORMATS_ZIP_PRIVATE_H
#define TW_TRAIN_FORMATS_ZIP_PRIVATE_H

#include "train/formats/read_ahead.h"
#include "train/formats/zip.h"

typedef struct tw_zip_entry {
    const char *name; /* in tw_zip.names */
    uint64_t size;    /* unpacked */
    uint64_t packed;  /* in the file; the same unless it is compressed */
    unsigned method;  /* 0: stored, the only one that is read */
    uint64_t local;   /* where its header begins */
    uint64_t limit;   /* where the next entry's header, or the directory, begins */
    uint64_t data;    /* where its bytes begin; 0: the header was not read yet */
    uint32_t crc;
    bool checked; /* all its bytes were read and have this CRC-32 */
} tw_zip_entry;

struct tw_zip {
    char *path;
    int fd;
    uint64_t size;
    tw_zip_entry *entries; /* in the directory's order */
    int64_t count;
    int64_t *by_name;
    char *names;
    unsigned char *scratch;
    tw_read_ahead *ahead; /* from the first entry that is read on */
};

/* Fills entries, count, by_name and names of a zip whose path, fd and size are set. */
tw_status tw_zip_read_directory(tw_zip *zip) TW_MUST_CHECK;

#endif
