#include "train/formats/file_range.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

tw_status tw_range_open(const char *path, int *fd, uint64_t *size) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return FAIL(TW_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat s;
    if (fstat(*fd, &s) == 0 && S_ISREG(s.st_mode)) {
        *size = (uint64_t)s.st_size;
        posix_fadvise(*fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        return TW_OK;
    }
    close(*fd);
    *fd = -1;
    return FAIL(TW_ERR_IO, "cannot read %s: it is not a file", path);
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
