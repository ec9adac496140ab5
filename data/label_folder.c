#include "data/label_folder.h"

#include "data/files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 64 };

/* ---- lists of names ---- */

typedef struct list {
    char **at;
    int64_t n, capacity;
} list;

static void free_list(list *l) {
    for (int64_t i = 0; i < l->n; i++) free(l->at[i]);
    free(l->at);
    *l = (list){0};
}

/* Owns `name` from now on, even after an error. NULL is a failed allocation. */
static tw_status add(list *l, char *name) {
    if (name && l->n == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 64;
        char **at = realloc(l->at, (size_t)capacity * sizeof *at);
        if (!at) {
            free(name);
            name = NULL;
        } else {
            l->at = at;
            l->capacity = capacity;
        }
    }
    if (!name) return FAIL(TW_ERR_MEMORY, "no memory for the names of files");
    l->at[l->n++] = name;
    return TW_OK;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(list *l) {
    if (l->n > 1) qsort(l->at, (size_t)l->n, sizeof *l->at, compare);
}

/* ---- reading folders ---- */

/* The names in a folder, sorted: folders (links to folders too) and all else. Either may be NULL. */
static tw_status read_folder(const char *path, list *folders, list *files) {
    DIR *dir = opendir(path);
    if (!dir)
        return FAIL(errno == ENOENT || errno == ENOTDIR ? TW_ERR_NOT_FOUND : TW_ERR_IO, "%s: %s", path,
                    strerror(errno));
    tw_status status = TW_OK;
    for (struct dirent *entry; status == TW_OK && (errno = 0, entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *full = tw_path_join(path, entry->d_name);
        list *into = full && tw_is_folder(full) ? folders : files;
        free(full);
        if (!full) status = FAIL(TW_ERR_MEMORY, "no memory for the names of files");
        if (full && into) status = add(into, strdup(entry->d_name));
    }
    if (status == TW_OK && errno) status = FAIL(TW_ERR_IO, "%s: %s", path, strerror(errno));
    closedir(dir);
    if (folders) sort(folders);
    if (files) sort(files);
    return status;
}

/* Where the walk is: a folder that is met again below itself is a loop of links. */
typedef struct walk {
    struct stat above[MAX_DEPTH];
    int depth;
    list folders; /* all, with paths */
} walk;

static tw_status enter(walk *w, const char *path) {
    struct stat info;
    if (stat(path, &info) != 0) return FAIL(TW_ERR_IO, "%s: %s", path, strerror(errno));
    for (int i = 0; i < w->depth; i++)
        if (w->above[i].st_dev == info.st_dev && w->above[i].st_ino == info.st_ino)
            return FAIL(TW_ERR_FORMAT, "%s: a symbolic link back to a folder it is in", path);
    if (w->depth == MAX_DEPTH) return FAIL(TW_ERR_FORMAT, "%s: more than %d folders deep", path, MAX_DEPTH);
    w->above[w->depth++] = info;
    return TW_OK;
}

static tw_status find_folders(walk *w, const char *path) {
    list names = {0};
    TRY(enter(w, path));
    tw_status status = add(&w->folders, strdup(path));
    if (status == TW_OK) status = read_folder(path, &names, NULL);
    for (int64_t i = 0; status == TW_OK && i < names.n; i++) {
        char *below = tw_path_join(path, names.at[i]);
        status = below ? find_folders(w, below) : FAIL(TW_ERR_MEMORY, "no memory for a path");
        free(below);
    }
    free_list(&names);
    w->depth--;
    return status;
}

static const char *const decoded[] = {".jpg", ".jpeg", ".png", ".webp", NULL};
static const char *const undecoded[] = {".bmp", ".pgm", ".ppm", ".tif", ".tiff", NULL};

static bool ends_in(const char *name, const char *const *endings) {
    size_t n = strlen(name);
    for (; *endings; endings++) {
        size_t length = strlen(*endings);
        if (n >= length && strcasecmp(name + n - length, *endings) == 0) return true;
    }
    return false;
}

static void leave_out(tw_label_folder *set, const char *folder, const char *name) {
    if (set->undecoded++ == 0)
        (void)snprintf(set->first_undecoded, sizeof set->first_undecoded, "%s/%s", folder, name);
}

/* The images right in one folder. */
static tw_status add_files(const char *folder, list *files, tw_label_folder *set) {
    list names = {0};
    tw_status status = read_folder(folder, NULL, &names);
    for (int64_t i = 0; status == TW_OK && i < names.n; i++) {
        if (ends_in(names.at[i], decoded))
            status = add(files, tw_path_join(folder, names.at[i]));
        else if (ends_in(names.at[i], undecoded))
            leave_out(set, folder, names.at[i]);
        else
            set->ignored++;
    }
    free_list(&names);
    return status;
}

/* The images of one class: its folders sorted by path, in each the files sorted by name. */
static tw_status add_class(const char *path, list *files, tw_label_folder *set) {
    walk w = {0};
    int64_t before = files->n, left_out = set->undecoded;
    tw_status status = find_folders(&w, path);
    sort(&w.folders);
    for (int64_t i = 0; status == TW_OK && i < w.folders.n; i++)
        status = add_files(w.folders.at[i], files, set);
    free_list(&w.folders);
    left_out = set->undecoded - left_out;
    if (status == TW_OK && files->n == before && left_out)
        status = FAIL(TW_ERR_FORMAT,
                      "%s: all %lld images of this class are of kinds that are not decoded here (.bmp, .pgm, "
                      ".ppm, .tif): convert them to PNG",
                      path, (long long)left_out);
    else if (status == TW_OK && files->n == before)
        status = FAIL(TW_ERR_FORMAT, "%s: a class without an image", path);
    return status;
}

/* ---- the set ---- */

static tw_status find_classes(const char *folder, tw_label_folder *set) {
    list names = {0};
    set->path = tw_path_join(folder, "test");
    if (set->path && !tw_is_folder(set->path)) {
        free(set->path);
        set->path = strdup(folder);
    }
    if (!set->path) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = read_folder(set->path, &names, NULL);
    set->folders = names.at;
    set->classes = names.n;
    TRY(status);
    if (names.n == 0)
        return FAIL(TW_ERR_FORMAT, "%s: no class folder; expected test/<label id>/ with images", set->path);
    return TW_OK;
}

static tw_status find_images(tw_label_folder *set) {
    list files = {0};
    int64_t *end = calloc((size_t)set->classes, sizeof *end);
    tw_status status = end ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t c = 0; status == TW_OK && c < set->classes; c++) {
        char *path = tw_path_join(set->path, set->folders[c]);
        status = path ? add_class(path, &files, set) : FAIL(TW_ERR_MEMORY, "out of memory");
        end[c] = files.n;
        free(path);
    }
    set->files = files.at;
    set->images = files.n;
    set->class_of = malloc((size_t)files.n * sizeof *set->class_of + 1);
    if (status == TW_OK && !set->class_of) status = FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t c = 0, i = 0; status == TW_OK && c < set->classes; c++)
        while (i < end[c]) set->class_of[i++] = (int32_t)c;
    free(end);
    return status;
}

static bool exists(const char *path) {
    struct stat info;
    return path && stat(path, &info) == 0;
}

static tw_status find_labels(const char *folder, const char *given, tw_label_folder *set) {
    if (given) {
        set->labels_path = strdup(given);
    } else {
        set->labels_path = tw_path_join(folder, "label_cn.txt");
        char *above = tw_path_join(folder, "../label_cn.txt");
        bool classes_here = strcmp(set->path, folder) == 0;
        if (classes_here && !exists(set->labels_path) && exists(above)) {
            free(set->labels_path);
            set->labels_path = above;
            above = NULL;
        }
        free(above);
        if (set->labels_path && !exists(set->labels_path))
            return FAIL(TW_ERR_NOT_FOUND, "no label file: there is no %s%s; give --labels FILE",
                        set->labels_path, classes_here ? ", and none in the folder above" : "");
    }
    if (!set->labels_path) return FAIL(TW_ERR_MEMORY, "out of memory");
    return tw_labels_load(set->labels_path, &set->labels);
}

/* ---- do labels and folders belong together? ---- */

/* A folder's name as a label id, or -1. */
static int64_t id_of(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > 9) return -1;
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)name[i])) return -1;
    return strtol(name, NULL, 10);
}

/* The first label id without a folder, or -1; -1 too if folders are not named by ids. */
static int64_t first_missing(const tw_label_folder *set) {
    bool *seen = calloc((size_t)set->labels.n, sizeof *seen);
    if (!seen) return -1;
    int64_t missing = -1;
    bool ids = true;
    for (int64_t c = 0; c < set->classes; c++) {
        int64_t id = id_of(set->folders[c]);
        ids = ids && id >= 0;
        if (id >= 0 && id < set->labels.n) seen[id] = true;
    }
    for (int64_t i = set->labels.n - 1; ids && i >= 0; i--)
        if (!seen[i]) missing = i;
    free(seen);
    return missing;
}

static tw_status match_labels(tw_label_folder *set) {
    int64_t labels = set->labels.n, missing = first_missing(set);
    if (labels > set->classes) {
        int64_t i = missing >= 0 ? missing : set->classes;
        return FAIL(TW_ERR_FORMAT,
                    "%s has %lld labels, %s has %lld class folders: no folder for label %lld, '%.60s'",
                    set->labels_path, (long long)labels, set->path, (long long)set->classes, (long long)i,
                    set->labels.at[i]);
    }
    if (labels < set->classes) {
        const char *extra = set->folders[labels];
        for (int64_t c = set->classes - 1; c >= 0; c--)
            if (id_of(set->folders[c]) >= labels) extra = set->folders[c];
        return FAIL(TW_ERR_FORMAT,
                    "%s has %lld labels, %s has %lld class folders: folder '%.60s' has no label",
                    set->labels_path, (long long)labels, set->path, (long long)set->classes, extra);
    }
    for (int64_t c = 0; c < set->classes; c++) {
        int64_t id = id_of(set->folders[c]);
        if (id < 0 || id == c) continue;
        (void)snprintf(set->warning, sizeof set->warning,
                       "folder '%s' is number %lld of the sorted folders and so gets the label of line %lld, "
                       "'%.60s'; ids with leading zeros from 0 on would sort by number",
                       set->folders[c], (long long)c + 1, (long long)c + 1, set->labels.at[c]);
        break;
    }
    return TW_OK;
}

tw_status tw_label_folder_open(const char *folder, const char *labels_path, tw_label_folder **out) {
    *out = NULL;
    tw_label_folder *set = calloc(1, sizeof *set);
    if (!set) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = find_classes(folder, set);
    if (status == TW_OK) status = find_labels(folder, labels_path, set);
    if (status == TW_OK) status = match_labels(set);
    if (status == TW_OK) status = find_images(set);
    if (status != TW_OK) {
        tw_label_folder_free(set);
        return status;
    }
    *out = set;
    return TW_OK;
}

void tw_label_folder_free(tw_label_folder *set) {
    if (!set) return;
    free_list(&(list){.at = set->folders, .n = set->classes});
    free_list(&(list){.at = set->files, .n = set->images});
    tw_prompts_free(&set->labels);
    free(set->class_of);
    free(set->path);
    free(set->labels_path);
    free(set);
}
