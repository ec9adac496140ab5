#include "fuzz.h"

#include "data/files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char folder[64];
static pid_t owner;

void fuzz_must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "fuzz: this does not hold: %s\n  last error: %s\n", what, tw_last_error());
    abort();
}

static void write_all(int fd, const void *data, size_t size) {
    const char *bytes = data;
    fuzz_must(ftruncate(fd, 0) == 0, "a file can be emptied");
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, bytes + done, size - done, (off_t)done);
        fuzz_must(n > 0, "a file can be written");
        done += (size_t)n;
    }
}

const char *fuzz_file(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        fuzz_must(fd >= 0, "memfd_create works");
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    write_all(fd, data, size);
    return path;
}

static void remove_folder(void) {
    if (getpid() == owner) tw_remove_folder(folder);
}

const char *fuzz_folder(void) {
    if (!folder[0]) {
        int memory = access("/dev/shm", W_OK) == 0;
        (void)snprintf(folder, sizeof folder, "%s/tw_fuzz_XXXXXX", memory ? "/dev/shm" : "/tmp");
        fuzz_must(mkdtemp(folder) != NULL, "a temporary folder can be made");
        owner = getpid();
        (void)atexit(remove_folder);
    }
    return folder;
}

const char *fuzz_link(const char *name, const char *target) {
    static char *made[8];
    size_t i = 0;
    while (i < sizeof made / sizeof made[0] && made[i]) i++;
    fuzz_must(i < sizeof made / sizeof made[0], "a target makes few links");
    made[i] = tw_path_join(fuzz_folder(), name);
    fuzz_must(made[i] && symlink(target, made[i]) == 0, "a link can be made");
    return made[i];
}

void fuzz_put(const char *name, const void *data, size_t size) {
    char *path = tw_path_join(fuzz_folder(), name);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    fuzz_must(fd >= 0, "a file can be made");
    write_all(fd, data, size);
    (void)close(fd);
    free(path);
}
