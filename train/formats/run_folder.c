#include "train/formats/run_folder.h"

#include "data/atomic_file.h"
#include "data/files.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One checkpoint's file in a folder. */
typedef struct item {
    int64_t epoch, step;
    char name[64];
} item;

typedef struct item_list {
    item *items; /* (count) newest first after read_folder */
    size_t count, room;
} item_list;

char *tw_run_folder_path(const char *folder, int64_t epoch, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "epoch_%lld_step_%lld.h5", (long long)epoch, (long long)step);
    return tw_path_join(folder, name);
}

/* True if the name is exactly what tw_run_folder_path makes. */
static bool parse_name(const char *name, item *out) {
    long long epoch, step;
    if (sscanf(name, "epoch_%lld_step_%lld", &epoch, &step) != 2) return false;
    out->epoch = epoch, out->step = step;
    snprintf(out->name, sizeof out->name, "epoch_%lld_step_%lld.h5", epoch, step);
    return strcmp(out->name, name) == 0;
}

static int newest_first(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->step != y->step) return x->step < y->step ? 1 : -1;
    return (x->epoch < y->epoch) - (x->epoch > y->epoch);
}

static tw_status add_item(item_list *list, const item *it, const char *folder) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        item *bigger = realloc(list->items, room * sizeof *bigger);
        if (!bigger) return FAIL(TW_ERR_MEMORY, "%s: no memory for a list of its files", folder);
        list->items = bigger, list->room = room;
    }
    list->items[list->count++] = *it;
    return TW_OK;
}

/* Lists the checkpoints, newest first, and removes stale temporaries if asked to. The caller frees
 * list->items, also on failure. */
static tw_status read_folder(const char *folder, item_list *list, bool clean) {
    memset(list, 0, sizeof *list);
    DIR *dir = opendir(folder);
    if (!dir) return FAIL(TW_ERR_IO, "cannot read the folder %s: %s", folder, strerror(errno));
    tw_status status = TW_OK;
    for (struct dirent *e; status == TW_OK && (e = readdir(dir));) {
        item it;
        if (parse_name(e->d_name, &it)) status = add_item(list, &it, folder);
        if (clean && tw_atomic_is_stale(folder, e->d_name)) unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
    if (list->count) qsort(list->items, list->count, sizeof *list->items, newest_first);
    return status;
}

/* The name that the link points to, without folder; "" if it is no link. */
static void read_link(const char *folder, const char *name, char target[PATH_MAX]) {
    char *path = tw_path_join(folder, name), full[PATH_MAX];
    ssize_t n = path ? readlink(path, full, sizeof full - 1) : -1;
    free(path);
    full[n > 0 ? n : 0] = '\0';
    const char *slash = strrchr(full, '/');
    snprintf(target, PATH_MAX, "%s", slash ? slash + 1 : full);
}

tw_status tw_run_folder_link(const char *folder, const char *name, const char *file) {
    const char *slash = strrchr(file, '/');
    return tw_atomic_link(folder, name, slash ? slash + 1 : file);
}

tw_status tw_run_folder_prune(const char *folder, int keep) {
    item_list list;
    char latest[PATH_MAX], best[PATH_MAX];
    read_link(folder, "latest", latest);
    read_link(folder, "best", best);
    tw_status status = read_folder(folder, &list, true);
    for (size_t i = keep > 0 ? (size_t)keep : list.count; status == TW_OK && i < list.count; i++) {
        const char *name = list.items[i].name;
        if (strcmp(name, latest) == 0 || strcmp(name, best) == 0) continue;
        char *path = tw_path_join(folder, name);
        if (!path || (unlink(path) != 0 && errno != ENOENT))
            status = FAIL(TW_ERR_IO, "cannot remove the old checkpoint %s/%s: %s", folder, name,
                          path ? strerror(errno) : "no memory");
        free(path);
    }
    free(list.items);
    return status;
}

tw_status tw_run_folder_save(const char *folder, const tw_checkpoint_meta *meta,
                             const tw_checkpoint_tensor *tensors, int64_t n, bool is_best, int keep) {
    TRY(tw_make_folders(folder));
    char *path = tw_run_folder_path(folder, meta->epoch, meta->step);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", folder);
    tw_status status = tw_checkpoint_write(path, meta, tensors, n);
    if (status == TW_OK) status = tw_run_folder_link(folder, "latest", path);
    if (status == TW_OK && is_best) status = tw_run_folder_link(folder, "best", path);
    free(path);
    return status == TW_OK ? tw_run_folder_prune(folder, keep) : status;
}

tw_status tw_run_folder_mend(const char *folder, const tw_checkpoint *last) {
    item_list list;
    tw_status status = read_folder(folder, &list, true);
    free(list.items);
    const tw_checkpoint_meta *meta = last ? tw_checkpoint_get_meta(last) : NULL;
    if (status != TW_OK || !meta || meta->best_step != meta->step) return status;
    char *path = tw_run_folder_path(folder, meta->epoch, meta->step); /* that of `last` may end in `latest` */
    if (!path) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", folder);
    if (access(path, F_OK) == 0) status = tw_run_folder_link(folder, "best", path);
    free(path);
    return status;
}

/* Appends the current error as one more sentence. A note that finds no memory is lost, not the run. */
static void add_note(char **notes, const char *what) {
    const char *why = tw_last_error();
    size_t old = *notes ? strlen(*notes) : 0, size = old + strlen(what) + strlen(why) + 8;
    char *longer = realloc(*notes, size);
    if (!longer) return;
    snprintf(longer + old, size - old, "%s%s: %s", old ? "; " : "", what, why);
    *notes = longer;
}

static tw_status open_named(const char *folder, const char *name, tw_checkpoint **out) {
    char *path = tw_path_join(folder, name);
    if (!path) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", folder);
    tw_status status = tw_checkpoint_open(path, out);
    free(path);
    return status;
}

tw_status tw_run_folder_open(const char *folder, tw_checkpoint **out, char **notes) {
    *out = NULL, *notes = NULL;
    item_list list;
    char latest[PATH_MAX], note[PATH_MAX + 32];
    tw_status status = read_folder(folder, &list, false), first = TW_OK;
    if (status != TW_OK) goto done;
    read_link(folder, "latest", latest);
    if (list.count == 0) {
        status = FAIL(TW_ERR_NOT_FOUND, "%s holds no checkpoint (epoch_E_step_S.h5)", folder);
        goto done;
    }
    first = open_named(folder, "latest", out);
    if (first == TW_OK) goto done;
    snprintf(note, sizeof note, "'latest'%s%s cannot be used", latest[0] ? " -> " : "", latest);
    add_note(notes, note);
    for (size_t i = 0; i < list.count; i++) {
        const char *name = list.items[i].name;
        if (strcmp(name, latest) == 0) continue; /* tried */
        status = open_named(folder, name, out);
        if (status == TW_OK) {
            snprintf(note, sizeof note, "%s", name);
            tw_status ignored = FAIL(TW_ERR_NOT_FOUND, "is used instead");
            (void)ignored;
            add_note(notes, note);
            goto done;
        }
        add_note(notes, name);
    }
    status = FAIL(first, "%s: no checkpoint can be used: %s", folder, *notes ? *notes : "no memory");
done:
    if (!*out) {
        free(*notes);
        *notes = NULL;
    }
    free(list.items);
    return status;
}
