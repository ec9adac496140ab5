#include "train/feature_part.h"

#include "data/files.h"
#include "train/formats/xxhash64.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A header, then records of one size, the last one padded with zeros. All in the machine's own byte order:
 * the file is not meant to travel. */
typedef struct header {
    char magic[8];
    tw_feature_job job;
    uint64_t check; /* of what is before */
} header;

typedef struct record {
    uint64_t check; /* of what follows, seeded with the record's number */
    int64_t n, truncated;
    /* bool ok[batch], padded to 8; float rows[batch][dim] */
} record;

static const char MAGIC[8] = "tw-part1";

struct tw_feature_part {
    int fd;
    char *path;
    tw_feature_job job;
    size_t flags, bytes; /* of ok, padded; of a record */
    record *record;
    int64_t records, items; /* that are there */
};

static bool *flags_of(tw_feature_part *part) {
    return (bool *)(part->record + 1);
}

static float *rows_of(tw_feature_part *part) {
    return (float *)((char *)(part->record + 1) + part->flags);
}

static uint64_t check_of(const tw_feature_part *part, int64_t index) {
    const size_t skip = sizeof part->record->check;
    return tw_xxh64((const char *)part->record + skip, part->bytes - skip, (uint64_t)index);
}

static uint64_t place_of(const tw_feature_part *part, int64_t index) {
    return sizeof(header) + (size_t)index * part->bytes;
}

static tw_status cannot(const tw_feature_part *part, const char *what, int error) {
    return FAIL(TW_ERR_IO, "%s: cannot be %s: %s", part->path, what, strerror(error));
}

static bool record_is_whole(tw_feature_part *part, int64_t index) {
    if (tw_read_at(part->fd, place_of(part, index), part->record, part->bytes) != 0) return false;
    int64_t left = part->job.items - index * part->job.batch;
    int64_t expected = left < part->job.batch ? left : part->job.batch;
    return part->record->check == check_of(part, index) && part->record->n == expected;
}

static tw_status begin(tw_feature_part *part) {
    header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.job = part->job;
    h.check = tw_xxh64(&h, offsetof(header, check), 0);
    int error = ftruncate(part->fd, 0) != 0 ? errno : tw_write_at(part->fd, 0, &h, sizeof h);
    return error ? cannot(part, "written", error) : TW_OK;
}

/* Whether the file's header is this job's. */
static bool is_ours(const tw_feature_part *part) {
    header h;
    return tw_read_at(part->fd, 0, &h, sizeof h) == 0 && memcmp(h.magic, MAGIC, sizeof MAGIC) == 0 &&
           h.check == tw_xxh64(&h, offsetof(header, check), 0) &&
           memcmp(&h.job, &part->job, sizeof h.job) == 0;
}

static tw_status load(tw_feature_part *part, bool *dropped) {
    struct stat info;
    part->fd = open(part->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (part->fd < 0) return cannot(part, "opened", errno);
    if (flock(part->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return FAIL(TW_ERR_IO, "%s is in use: another extraction writes these features", part->path);
    if (fstat(part->fd, &info) != 0) return cannot(part, "read", errno);
    if (!is_ours(part)) {
        *dropped = info.st_size > 0;
        return begin(part);
    }
    while (part->items < part->job.items && record_is_whole(part, part->records)) {
        part->items += part->record->n;
        part->records++;
    }
    if (ftruncate(part->fd, (off_t)place_of(part, part->records)) != 0) return cannot(part, "written", errno);
    return TW_OK;
}

tw_status tw_feature_part_open(const char *path, const tw_feature_job *job, int64_t *done, bool *dropped,
                               tw_feature_part **out) {
    *out = NULL;
    *done = 0;
    *dropped = false;
    tw_feature_part *part = calloc(1, sizeof *part);
    if (!part) return FAIL(TW_ERR_MEMORY, "%s: no memory", path);
    part->fd = -1;
    part->job = *job;
    part->flags = ((size_t)job->batch + 7) / 8 * 8;
    part->bytes =
        (sizeof(record) + part->flags + (size_t)(job->batch * job->dim) * sizeof(float) + 7) / 8 * 8;
    part->record = calloc(1, part->bytes);
    part->path = strdup(path);
    tw_status status =
        part->record && part->path ? load(part, dropped) : FAIL(TW_ERR_MEMORY, "%s: no memory", path);
    if (status != TW_OK) {
        tw_feature_part_close(part, false);
        return status;
    }
    *done = part->items;
    *out = part;
    return TW_OK;
}

tw_status tw_feature_part_append(tw_feature_part *part, const float *rows, const bool *ok, int64_t n,
                                 int64_t truncated) {
    int64_t left = part->job.items - part->items;
    if (n != (left < part->job.batch ? left : part->job.batch))
        return FAIL(TW_ERR_ARGUMENT, "%s: a batch of %lld, %lld are left", part->path, (long long)n,
                    (long long)left);
    memset(part->record, 0, part->bytes);
    part->record->n = n;
    part->record->truncated = truncated;
    for (int64_t i = 0; i < n; i++) flags_of(part)[i] = ok ? ok[i] : true;
    memcpy(rows_of(part), rows, (size_t)(n * part->job.dim) * sizeof *rows);
    part->record->check = check_of(part, part->records);
    int error = tw_write_at(part->fd, place_of(part, part->records), part->record, part->bytes);
    if (error) return cannot(part, "written", error);
    part->records++;
    part->items += n;
    return TW_OK;
}

tw_status tw_feature_part_read(tw_feature_part *part, int64_t index, tw_feature_batch *out) {
    *out = (tw_feature_batch){.first = part->items};
    if (index >= part->records) return TW_OK;
    errno = 0;
    if (!record_is_whole(part, index))
        return FAIL(TW_ERR_IO, "%s: batch %lld cannot be read again%s%s", part->path, (long long)index,
                    errno ? ": " : "", errno ? strerror(errno) : "");
    *out = (tw_feature_batch){.first = index * part->job.batch,
                              .n = part->record->n,
                              .rows = rows_of(part),
                              .ok = flags_of(part),
                              .truncated = part->record->truncated};
    return TW_OK;
}

void tw_feature_part_close(tw_feature_part *part, bool remove) {
    if (!part) return;
    if (remove && part->fd >= 0) unlink(part->path);
    if (part->fd >= 0) close(part->fd);
    free(part->record);
    free(part->path);
    free(part);
}
