#include "train/formats/file_range.h"

#include "data/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

tw_status tw_range_open(const char *path, int *fd, uint64_t *size) {
    struct stat s;
    if (tw_open_file(path, fd) != TW_OK) return TW_ERR_IO;
    if (fstat(*fd, &s) == 0) {
        *size = (uint64_t)s.st_size;
        posix_fadvise(*fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        return TW_OK;
    }
    close(*fd);
    *fd = -1;
    return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(errno));
}

tw_status tw_range_read(const char *path, int fd, uint64_t offset, uint64_t size, void *dst) {
    int error = tw_read_at(fd, offset, dst, size);
    if (error == TW_READ_SHORT)
        return FAIL(TW_ERR_FORMAT, "%s: ends before byte %llu, more was expected", path,
                    (unsigned long long)(offset + size));
    return error ? FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(error)) : TW_OK;
}
