#include "data/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

tw_status tw_make_folders(const char *path) {
    char part[PATH_BYTES];
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof part) return FAIL(TW_ERR_ARGUMENT, "not a path: '%.100s'", path);
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) == 0) continue;
        int code = errno;
        if (code == EEXIST && tw_is_folder(part)) continue;
        return FAIL(TW_ERR_IO, "%s: cannot make this folder: %s", part,
                    code == EEXIST ? "there is a file of that name" : strerror(code));
    }
    return TW_OK;
}

tw_status tw_sync_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return FAIL(TW_ERR_IO, "%s: %s", path, strerror(errno));
    int code = fsync(fd) ? errno : 0;
    close(fd);
    /* Some network file systems cannot sync folders; they order renames themselves. */
    if (code && code != EINVAL && code != ENOTSUP) return FAIL(TW_ERR_IO, "%s: %s", path, strerror(code));
    return TW_OK;
}

bool tw_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *tw_path_join(const char *folder, const char *name) {
    size_t n = strlen(folder);
    char *out = malloc(n + strlen(name) + 2);
    if (!out) return NULL;
    sprintf(out, n && folder[n - 1] == '/' ? "%s%s" : "%s/%s", folder, name);
    return out;
}

static void remove_files(const char *path, int depth) {
    DIR *folder = opendir(path);
    if (folder) {
        for (const struct dirent *e; (e = readdir(folder));) {
            char inner[PATH_BYTES + 256];
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
            (void)snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
            if (unlink(inner) != 0 && depth > 0) remove_files(inner, depth - 1);
        }
        closedir(folder);
    }
    (void)rmdir(path);
}

void tw_remove_folder(const char *path) {
    remove_files(path, 1);
}

tw_status tw_split_path(const char *path, char *parent, char *name, size_t size) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/') start--;
    size_t up = start;
    while (up > 1 && path[up - 1] == '/') up--;
    if (n >= size || n == start || (n - start == 1 && path[start] == '.') ||
        (n - start == 2 && memcmp(path + start, "..", 2) == 0))
        return FAIL(TW_ERR_ARGUMENT, "'%.200s' does not name a folder to write", path);
    memcpy(name, path + start, n - start);
    name[n - start] = '\0';
    if (up == 0) {
        (void)snprintf(parent, size, ".");
    } else {
        memcpy(parent, path, up);
        parent[up] = '\0';
    }
    return TW_OK;
}

static tw_status cannot_open(const char *path) {
    return FAIL(errno == ENOENT || errno == ENOTDIR ? TW_ERR_NOT_FOUND : TW_ERR_IO, "cannot open %s: %s",
                path, strerror(errno));
}

tw_status tw_open_file(const char *path, int *fd) {
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return cannot_open(path);
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) return TW_OK;
    bool folder = S_ISDIR(info.st_mode);
    close(*fd);
    *fd = -1;
    return FAIL(TW_ERR_IO, "cannot open %s: it is a %s, not a file", path,
                folder ? "folder" : "pipe or device");
}

static bool is_inherited(const char *path) {
    return strcmp(path, "/dev/stdin") == 0 || strncmp(path, "/dev/fd/", 8) == 0 ||
           strncmp(path, "/proc/self/fd/", 14) == 0;
}

tw_status tw_open_stream(const char *path, FILE **out) {
    int fd = -1;
    *out = NULL;
    if (is_inherited(path)) {
        *out = fopen(path, "rbe");
        return *out ? TW_OK : cannot_open(path);
    }
    TRY(tw_open_file(path, &fd));
    *out = fdopen(fd, "rb");
    if (*out) return TW_OK;
    tw_status status = cannot_open(path);
    close(fd);
    return status;
}

int tw_read_at(int fd, uint64_t at, void *to, size_t size) {
    const size_t most = 1 << 30; /* the system's own limit a call is just below 2 GiB */
    for (char *next = to; size > 0;) {
        ssize_t n = pread(fd, next, size < most ? size : most, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : TW_READ_SHORT;
        next += n, at += (uint64_t)n, size -= (size_t)n;
    }
    return 0;
}

int tw_write_at(int fd, uint64_t at, const void *from, size_t size) {
    for (const char *next = from; size > 0;) {
        ssize_t n = pwrite(fd, next, size, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : ENOSPC;
        next += n, at += (uint64_t)n, size -= (size_t)n;
    }
    return 0;
}

tw_status tw_read_file(const char *path, uint8_t **data, size_t *size) {
    *data = NULL;
    FILE *file;
    TRY(tw_open_stream(path, &file));
    size_t capacity = 64 * 1024, n = 0;
    struct stat info;
    if (fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0)
        capacity = (size_t)info.st_size + 1;
    tw_status status = TW_OK;
    for (;;) {
        uint8_t *larger = realloc(*data, capacity);
        if (!larger) {
            status = FAIL(TW_ERR_MEMORY, "%s: no memory for %zu bytes", path, capacity);
            break;
        }
        *data = larger;
        n += fread(larger + n, 1, capacity - n, file);
        if (ferror(file)) status = FAIL(TW_ERR_IO, "%s: %s", path, strerror(errno));
        if (n < capacity || status) break;
        capacity *= 2;
    }
    (void)fclose(file);
    *size = n;
    if (status) {
        free(*data);
        *data = NULL;
    }
    return status;
}
