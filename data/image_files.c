#include "data/image_files.h"

#include "data/files.h"
#include "data/image_kind.h"
#include "data/lines.h"
#include "data/string_map.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { DEPTH = 64 }; /* folders within folders */

typedef struct entry {
    char *path, *id; /* of a folder's file, id is the tail of path; else its own string */
    bool own_id;
} entry;

typedef struct owned {
    tw_image_files files; /* first: what callers hold */
    entry *entries;
    int64_t capacity;
    const char **paths;
    tw_id *ids;
} owned;

/* Takes over path and, if it is not a part of it, id. */
static tw_status add(owned *o, char *path, char *id, bool own_id) {
    if (o->files.n == o->capacity) {
        int64_t capacity = 2 * o->capacity + 1024;
        entry *larger = realloc(o->entries, (size_t)capacity * sizeof *larger);
        if (larger) o->entries = larger, o->capacity = capacity;
    }
    if (path && id && o->files.n < o->capacity) {
        o->entries[o->files.n++] = (entry){path, id, own_id};
        return TW_OK;
    }
    free(path);
    if (own_id) free(id);
    return FAIL(TW_ERR_MEMORY, "no memory for the names of %lld images", (long long)o->files.n + 1);
}

/* ---- a folder ---- */

static bool is_image_name(const char *name) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".webp"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t size = strlen(endings[i]);
        if (n > size && strcasecmp(name + n - size, endings[i]) == 0) return true;
    }
    return false;
}

static void pass_over(owned *o, const char *id) {
    if (o->files.passed_over++ > 0) return;
    (void)snprintf(o->files.first_passed_over, sizeof o->files.first_passed_over, "%s", id);
}

static tw_status walk(owned *o, const char *folder, size_t root, int depth);

/* Takes over path. */
static tw_status visit(owned *o, char *path, size_t root, int depth) {
    struct stat link, info;
    tw_id id;
    char *name = path + root;
    tw_status status = TW_OK;
    if (lstat(path, &link) == 0 && S_ISDIR(link.st_mode)) {
        status = walk(o, path, root, depth + 1);
    } else if (is_image_name(name) && stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
               tw_id_from_text(name, strlen(name), &id) == TW_OK) {
        return add(o, path, name, false);
    } else {
        pass_over(o, name);
    }
    free(path);
    return status;
}

static tw_status walk(owned *o, const char *folder, size_t root, int depth) {
    if (depth > DEPTH)
        return FAIL(TW_ERR_FORMAT, "%s: more than %d folders within folders", folder, (int)DEPTH);
    DIR *dir = opendir(folder);
    if (!dir) return FAIL(TW_ERR_IO, "%s: %s", folder, strerror(errno));
    tw_status status = TW_OK;
    while (status == TW_OK) {
        errno = 0;
        const struct dirent *e = readdir(dir);
        if (!e) {
            if (errno) status = FAIL(TW_ERR_IO, "%s: %s", folder, strerror(errno));
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = tw_path_join(folder, e->d_name);
        status = path ? visit(o, path, root, depth) : FAIL(TW_ERR_MEMORY, "%s: no memory to list it", folder);
    }
    (void)closedir(dir);
    return status;
}

static int by_id(const void *a, const void *b) {
    return strcmp(((const entry *)a)->id, ((const entry *)b)->id);
}

static bool holds(const char *folder, const char *name) {
    struct stat info;
    char *path = tw_path_join(folder, name);
    bool found = path && stat(path, &info) == 0;
    free(path);
    return found;
}

/* The original's --image-data is a split's imgs, which is natural to try. */
static tw_status no_images(const owned *o, const char *folder) {
    char parent[4096], name[4096];
    if (holds(folder, "data.mdb") && tw_split_path(folder, parent, name, sizeof name) == TW_OK)
        return FAIL(TW_ERR_FORMAT,
                    "%s: holds a shard (data.mdb), not image files: give its split with --data %s", folder,
                    parent);
    if (holds(folder, "imgs/data.mdb"))
        return FAIL(TW_ERR_FORMAT,
                    "%s: is a split of shards, not a folder of image files: give it with --data", folder);
    return FAIL(TW_ERR_FORMAT, "%s: holds no .jpg, .jpeg, .png or .webp file (%lld others)", folder,
                (long long)o->files.passed_over);
}

static tw_status read_folder(owned *o, const char *folder) {
    size_t n = strlen(folder);
    TRY(walk(o, folder, n + (n > 0 && folder[n - 1] != '/'), 0));
    if (o->files.n == 0) return no_images(o, folder);
    qsort(o->entries, (size_t)o->files.n, sizeof *o->entries, by_id);
    return TW_OK;
}

/* ---- a list ---- */

static tw_status read_line(owned *o, tw_string_map *seen, const char *folder, char *line, size_t size) {
    char *tab = memchr(line, '\t', size), *path = tab ? tab + 1 : line;
    size_t id_bytes = tab ? (size_t)(tab - line) : size;
    tw_id id;
    bool is_new;
    if (strlen(line) != size || !*path) return FAIL(TW_ERR_FORMAT, "PATH or ID<TAB>PATH is needed");
    if (tab) *tab = '\0';
    TRY(tw_id_from_text(line, id_bytes, &id));
    int64_t number;
    TRY(tw_string_map_add(seen, line, id_bytes, &number, &is_new));
    if (!is_new) return FAIL(TW_ERR_FORMAT, "the id '%s' is there twice", line);
    return add(o, *path == '/' || !*folder ? strdup(path) : tw_path_join(folder, path), strdup(line), true);
}

static tw_status read_lines(owned *o, tw_lines *lines, const char *folder) {
    tw_string_map seen = {0};
    tw_status status = TW_OK;
    while (status == TW_OK) {
        char *line;
        size_t size;
        status = tw_lines_next(lines, &line, &size);
        if (status != TW_OK || !line) break;
        if (tw_lines_is_blank(line, size)) continue;
        status = read_line(o, &seen, folder, line, size);
        if (status != TW_OK)
            status =
                tw_fail_context(status, "%s:%lld", tw_lines_path(lines), (long long)tw_lines_number(lines));
    }
    tw_string_map_free(&seen);
    return status;
}

static tw_status read_list(owned *o, const char *list) {
    tw_lines *lines;
    TRY(tw_lines_open(list, &lines));
    const char *slash = strrchr(list, '/');
    char *folder = slash ? strndup(list, (size_t)(slash - list) + 1) : strdup("");
    tw_status status = folder ? read_lines(o, lines, folder) : FAIL(TW_ERR_MEMORY, "%s: no memory", list);
    free(folder);
    tw_lines_close(lines);
    if (status == TW_OK && o->files.n == 0) status = FAIL(TW_ERR_FORMAT, "%s: names no images", list);
    return status;
}

/* ---- an image ---- */

static bool is_image(const char *path) {
    uint8_t head[16];
    FILE *file;
    if (tw_open_stream(path, &file) != TW_OK) return false;
    size_t n = fread(head, 1, sizeof head, file);
    (void)fclose(file);
    return tw_image_kind_of(head, n) != TW_IMAGE_UNKNOWN;
}

static tw_status read_image(owned *o, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    tw_id id;
    tw_status status = tw_id_from_text(name, strlen(name), &id);
    if (status != TW_OK) return tw_fail_context(status, "%s", path);
    char *copy = strdup(path);
    return add(o, copy, copy ? copy + (name - path) : NULL, false);
}

/* ---- all of them ---- */

static tw_status settle(owned *o) {
    size_t n = (size_t)o->files.n;
    o->paths = malloc(n * sizeof *o->paths + 1);
    o->ids = malloc(n * sizeof *o->ids + 1);
    if (!o->paths || !o->ids) return FAIL(TW_ERR_MEMORY, "no memory for %zu images", n);
    for (size_t i = 0; i < n; i++) {
        const entry *e = &o->entries[i];
        o->paths[i] = e->path;
        TRY(tw_id_from_text(e->id, strlen(e->id), &o->ids[i]));
        if (!e->own_id) o->ids[i].is_integer = false;
    }
    o->files.paths = o->paths;
    o->files.ids = o->ids;
    return TW_OK;
}

tw_status tw_image_files_load(const char *path, tw_image_files **out) {
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0)
        return FAIL(errno == ENOENT || errno == ENOTDIR ? TW_ERR_NOT_FOUND : TW_ERR_IO, "%s: %s", path,
                    strerror(errno));
    owned *o = calloc(1, sizeof *o);
    if (!o) return FAIL(TW_ERR_MEMORY, "%s: no memory to list it", path);
    tw_status status = S_ISDIR(info.st_mode)                     ? read_folder(o, path)
                       : S_ISREG(info.st_mode) && is_image(path) ? read_image(o, path)
                                                                 : read_list(o, path);
    if (status == TW_OK) status = settle(o);
    if (status == TW_OK)
        *out = &o->files;
    else
        tw_image_files_free(&o->files);
    return status;
}

void tw_image_files_free(tw_image_files *files) {
    if (!files) return;
    owned *o = (owned *)files;
    for (int64_t i = 0; i < o->files.n; i++) {
        free(o->entries[i].path);
        if (o->entries[i].own_id) free(o->entries[i].id);
    }
    free(o->entries);
    free(o->paths);
    free(o->ids);
    free(o);
}
