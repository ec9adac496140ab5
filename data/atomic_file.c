#include "data/atomic_file.h"

#include "data/files.h"
#include "data/process_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char SUFFIX[] = ".tw-tmp";
enum { STALE_SECONDS = 15 * 60 };

/* A host name without dots, so that it can stand between dots in a file name. */
static void host_label(char label[65]) {
    memset(label, 0, 65);
    if (gethostname(label, 64) != 0 || !label[0]) strcpy(label, "host");
    for (char *c = label; *c; c++)
        if (*c == '.' || *c == '/') *c = '-';
}

/* The length of the folder part of `path`, its slash included; 0 when there is none. */
static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* When the process of that number began, in ticks since the system did; 0 if it cannot be told. Numbers are
 * used again: in a container that is started anew, all of them and at once. */
static unsigned long long start_of(long pid) {
    char path[64], fields[TW_PROCESS_STAT];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if (!tw_process_stat(path, fields)) return 0;
    const char *field = fields;
    for (int k = 3; field && k < 22; k++) field = strchr(field + 1, ' ');
    return field ? strtoull(field, NULL, 10) : 0;
}

/* The space of process numbers that this process is in; 0 if it cannot be told. */
static unsigned long long own_space(void) {
    struct stat info;
    return stat("/proc/self/ns/pid", &info) == 0 ? (unsigned long long)info.st_ino : 0;
}

void tw_writer_label(char label[TW_WRITER_LABEL]) {
    char host[65];
    host_label(host);
    snprintf(label, TW_WRITER_LABEL, "%s.%ld-%llu-%llu", host, (long)getpid(), start_of((long)getpid()),
             own_space());
}

bool tw_writer_is_gone(const char *label) {
    char host[65], *end = NULL;
    host_label(host);
    size_t n = strlen(host);
    if (strncmp(label, host, n) != 0 || label[n] != '.') return false;
    long pid = strtol(label + n + 1, &end, 10);
    unsigned long long then = *end == '-' ? strtoull(end + 1, &end, 10) : 0;
    unsigned long long space = *end == '-' ? strtoull(end + 1, &end, 10) : 0;
    if (pid <= 0 || *end || (space && space != own_space())) return false;
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH) return true;
    unsigned long long now = start_of(pid);
    return then && now && then != now;
}

static char *temporary_name(const char *path) {
    char writer[TW_WRITER_LABEL];
    tw_writer_label(writer);
    size_t folder = folder_length(path), size = strlen(path) + sizeof writer + sizeof SUFFIX + 8;
    char *temp = malloc(size);
    if (temp) snprintf(temp, size, "%.*s.%s.%s%s", (int)folder, path, path + folder, writer, SUFFIX);
    return temp;
}

tw_status tw_atomic_begin(const char *path, char **temp) {
    *temp = NULL;
    if (!path[folder_length(path)])
        return FAIL(TW_ERR_ARGUMENT, "'%s' is a folder, a file name is needed", path);
    char *name = temporary_name(path);
    if (!name) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", path);
    int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) {
        int error = errno;
        free(name);
        return FAIL(TW_ERR_IO, "cannot write %s: %s", path, strerror(error));
    }
    close(fd);
    *temp = name;
    return TW_OK;
}

void tw_atomic_discard(const char *temp) {
    if (!temp) return;
    if (truncate(temp, 0) != 0 || unlink(temp) != 0) unlink(temp);
}

/* Makes the name `path` durable in its folder. */
static tw_status sync_folder_of(const char *path) {
    size_t n = folder_length(path);
    char *folder = n ? strndup(path, n) : strdup(".");
    if (!folder) return FAIL(TW_ERR_MEMORY, "%s: no memory for a folder name", path);
    tw_status status = tw_sync_folder(folder);
    free(folder);
    return status;
}

tw_status tw_atomic_publish(const char *temp, const char *path) {
    int fd = open(temp, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0 && close(fd) != 0 && !error) error = errno;
    if (!error && rename(temp, path) != 0) error = errno;
    if (error) {
        tw_atomic_discard(temp);
        return FAIL(TW_ERR_IO, "%s: cannot be written: %s; an older file is untouched", path,
                    strerror(error));
    }
    return sync_folder_of(path);
}

tw_status tw_atomic_link(const char *folder, const char *name, const char *target) {
    tw_status status = TW_OK;
    char *path = tw_path_join(folder, name), *temp = path ? temporary_name(path) : NULL;
    if (!temp) {
        status = FAIL(TW_ERR_MEMORY, "%s/%s: no memory for a file name", folder, name);
        goto done;
    }
    unlink(temp); /* of a killed process that had our number, where its start cannot be told */
    if (symlink(target, temp) != 0 || rename(temp, path) != 0) {
        int error = errno;
        unlink(temp);
        status = FAIL(TW_ERR_IO, "cannot link %s to %s: %s", path, target, strerror(error));
        goto done;
    }
    status = sync_folder_of(path);
done:
    free(temp);
    free(path);
    return status;
}

bool tw_atomic_is_stale(const char *folder, const char *name) {
    size_t n = strlen(name), suffix = sizeof SUFFIX - 1;
    if (n <= suffix || name[0] != '.' || strcmp(name + n - suffix, SUFFIX) != 0) return false;
    char *path = tw_path_join(folder, name);
    struct stat info;
    bool found = path && lstat(path, &info) == 0;
    free(path);
    if (!found) return false;
    if (time(NULL) - info.st_mtime > STALE_SECONDS) return true;
    char head[256];
    if (n - suffix >= sizeof head) return false;
    memcpy(head, name, n - suffix), head[n - suffix] = '\0';
    const char *dot = strrchr(head, '.'); /* the label has one, and one is before it */
    const char *writer = dot ? memrchr(head, '.', (size_t)(dot - head)) : NULL;
    return writer && tw_writer_is_gone(writer + 1);
}

/* ---- streams ---- */

tw_status tw_atomic_file_open(tw_atomic_file *file, const char *path) {
    *file = (tw_atomic_file){0};
    char *temporary;
    TRY(tw_atomic_begin(path, &temporary));
    *file = (tw_atomic_file){.stream = fopen(temporary, "wbe"), .path = strdup(path), .temporary = temporary};
    tw_status status = TW_OK;
    if (!file->stream)
        status = FAIL(TW_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    else if (!file->path)
        status = FAIL(TW_ERR_MEMORY, "%s: no memory for its name", path);
    if (status != TW_OK) tw_atomic_file_discard(file);
    return status;
}

tw_status tw_atomic_file_commit(tw_atomic_file *file) {
    /* errno of an earlier failed fwrite is gone by now; a full disk shows again in fflush or fsync. */
    errno = 0;
    int failed = ferror(file->stream);
    failed |= fflush(file->stream) != 0;
    int error = errno;
    failed |= fclose(file->stream) != 0;
    file->stream = NULL;
    tw_status status = TW_OK;
    if (failed)
        status = FAIL(TW_ERR_IO, "%s: cannot be written: %s; an older file is untouched", file->path,
                      error ? strerror(error) : "write error (disk full?)");
    else
        status = tw_atomic_publish(file->temporary, file->path);
    if (status == TW_OK) free(file->temporary), file->temporary = NULL;
    tw_atomic_file_discard(file);
    return status;
}

tw_status tw_atomic_file_end(tw_atomic_file *file, tw_status written) {
    if (written == TW_OK) return tw_atomic_file_commit(file);
    tw_atomic_file_discard(file);
    return written;
}

void tw_atomic_file_discard(tw_atomic_file *file) {
    if (file->stream) fclose(file->stream);
    tw_atomic_discard(file->temporary);
    free(file->path);
    free(file->temporary);
    *file = (tw_atomic_file){0};
}
