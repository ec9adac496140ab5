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
    unsigned char *to = dst;
    while (size > 0) {
        size_t part = size < (1u << 30) ? (size_t)size : 1u << 30;
        ssize_t n = pread(fd, to, part, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        if (n == 0)
            return FAIL(TW_ERR_FORMAT, "%s: ends at byte %llu, more was expected", path,
                        (unsigned long long)offset);
        to += n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return TW_OK;
}
