#include "data/atomic_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

tw_status tw_atomic_file_open(tw_atomic_file *file, const char *path) {
    size_t length = strlen(path);
    *file = (tw_atomic_file){.path = malloc(length + 1), .temporary = malloc(length + 5)};
    if (!file->path || !file->temporary) {
        tw_atomic_file_discard(file);
        return FAIL(TW_ERR_MEMORY, "%s: no memory for its name", path);
    }
    memcpy(file->path, path, length + 1);
    memcpy(file->temporary, path, length);
    memcpy(file->temporary + length, ".tmp", 5);
    file->stream = fopen(file->temporary, "wb");
    if (!file->stream) {
        tw_status status = FAIL(TW_ERR_IO, "%s: cannot be created: %s; check the folder and its permissions",
                                file->temporary, strerror(errno));
        tw_atomic_file_discard(file);
        return status;
    }
    return TW_OK;
}

tw_status tw_atomic_file_commit(tw_atomic_file *file) {
    /* errno of an earlier failed fwrite is gone by now; a full disk shows again in fflush or fsync. */
    errno = 0;
    int failed = ferror(file->stream);
    failed |= fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0;
    int error = errno;
    failed |= fclose(file->stream) != 0;
    file->stream = NULL;
    if (failed) {
        tw_status status = FAIL(TW_ERR_IO, "%s: cannot be written: %s; an older file is untouched",
                                file->path, error ? strerror(error) : "write error (disk full?)");
        tw_atomic_file_discard(file);
        return status;
    }
    if (rename(file->temporary, file->path) != 0) {
        tw_status status =
            FAIL(TW_ERR_IO, "%s: cannot be renamed to %s: %s", file->temporary, file->path, strerror(errno));
        tw_atomic_file_discard(file);
        return status;
    }
    free(file->path);
    free(file->temporary);
    *file = (tw_atomic_file){0};
    return TW_OK;
}

void tw_atomic_file_discard(tw_atomic_file *file) {
    if (file->stream) fclose(file->stream);
    if (file->temporary) unlink(file->temporary);
    free(file->path);
    free(file->temporary);
    *file = (tw_atomic_file){0};
}
