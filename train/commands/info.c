/* `tuwen info`: what is in a checkpoint, a run folder, a data set or a feature file. Every kind becomes one
 * JSON object, which is printed as it is or as indented lines. */
#include "data/files.h"
#include "data/shards.h"
#include "train/commands/commands.h"
#include "train/commands/info_weights.h"
#include "train/formats/features.h"
#include "train/formats/run_folder.h"
#include "train/formats/seal.h"
#include "train/model_io.h"
#include "train/model_source.h"
#include "train/options.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* jansson ignores a NULL value, so these need no check; a NULL text is left out. */
static void put_int(json_t *o, const char *key, int64_t value) {
    json_object_set_new(o, key, json_integer(value));
}

static void put_text(json_t *o, const char *key, const char *text) {
    if (text) json_object_set_new(o, key, json_string(text));
}

static void put_real(json_t *o, const char *key, double value) {
    json_object_set_new(o, key, isfinite(value) ? json_real(value) : json_null());
}

/* ---- checkpoints ---- */

static void put_parameters(json_t *o, const tw_checkpoint *c) {
    int64_t image = 0, text = 0, other = 0, statistics = 0, moments = 0;
    for (int64_t i = 0; i < tw_checkpoint_count(c); i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        if (strstr(e->name, ".running_")) { /* batch norm's averages are no parameters */
            statistics += e->count;
            continue;
        }
        if (strncmp(e->name, "visual.", 7) == 0)
            image += e->count;
        else if (strncmp(e->name, "bert.", 5) == 0)
            text += e->count;
        else
            other += e->count;
        moments += e->has_m;
    }
    json_t *p = json_object();
    put_int(p, "total", image + text + other);
    put_int(p, "image_tower", image);
    put_int(p, "text_tower", text);
    put_int(p, "other", other);
    if (statistics) put_int(p, "running_statistics", statistics);
    json_object_set_new(o, "parameters", p);
    put_int(o, "tensors", tw_checkpoint_count(c));
    put_int(o, "tensors_with_moments", moments);
}

static void put_training(json_t *o, const tw_checkpoint_meta *m) {
    json_t *t = json_object();
    put_int(t, "step", m->step);
    put_int(t, "epoch", m->epoch);
    put_int(t, "position_in_epoch", m->position);
    put_int(t, "adam_steps", m->adam_steps);
    put_int(t, "skipped_steps", m->skipped_total);
    json_object_set_new(t, "seed",
                        m->seed <= INT64_MAX ? json_integer((json_int_t)m->seed)
                                             : json_sprintf("%llu", (unsigned long long)m->seed));
    if (m->best_step >= 0) {
        put_real(t, "best_r1", m->best_r1);
        put_int(t, "best_step", m->best_step);
    }
    put_int(t, "threads", m->threads);
    put_int(t, "ranks", m->ranks);
    put_int(t, "micro_batch", m->micro_batch);
    put_text(t, "cpu", m->cpu);
    put_text(t, "build", m->build);
    put_text(t, "train_data", m->train_data);
    json_object_set_new(o, "training", t);
}

static int64_t count_lines(const char *bytes, size_t size) {
    int64_t lines = size && bytes[size - 1] != '\n';
    for (size_t i = 0; i < size; i++) lines += bytes[i] == '\n';
    return lines;
}

static tw_status describe_checkpoint(json_t *o, const tw_info_options *options, const tw_checkpoint *c) {
    const tw_checkpoint_meta *m = tw_checkpoint_get_meta(c);
    put_text(o, "kind", "checkpoint");
    put_text(o, "path", tw_checkpoint_path(c));
    put_int(o, "bytes", tw_checkpoint_bytes(c));
    put_text(o, "values", "f32");
    put_text(o, "compute", m->precision);
    put_parameters(o, c);
    put_int(o, "context_length", m->context_length);
    put_int(o, "vocabulary", m->vocab ? count_lines(m->vocab, m->vocab_bytes) : 0);
    put_training(o, m);
    tw_model_config config;
    tw_status status = tw_checkpoint_model_config(c, &config);
    put_text(o, "architecture", status == TW_OK ? config.name : NULL);
    put_text(o, "no_architecture", status == TW_OK ? NULL : tw_last_error());
    if (status == TW_OK) TRY(tw_info_memory(&config, options, o));
    put_text(o, "model", m->model_yaml);
    return TW_OK;
}

static tw_status info_checkpoint(const char *path, const tw_info_options *options, json_t *o) {
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(path, &c));
    tw_status status = describe_checkpoint(o, options, c);
    tw_checkpoint_close(c);
    return status;
}

static tw_status info_run(const char *folder, const tw_info_options *options, json_t *o) {
    tw_checkpoint *c;
    char *notes;
    TRY(tw_run_folder_open(folder, &c, &notes));
    tw_status status = describe_checkpoint(o, options, c);
    put_text(o, "warning", notes);
    free(notes);
    tw_checkpoint_close(c);
    return status;
}

/* ---- data sets ---- */

static int64_t characters(const char *text, size_t bytes) {
    int64_t n = 0;
    for (size_t i = 0; i < bytes; i++) n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* Every pair is read, so that bad ones are found here and not in training. */
static tw_status read_pairs(const tw_dataset *set, json_t *o) {
    tw_reader *reader;
    tw_pair pair;
    int64_t good = 0, bad = 0, length = 0, longest = 0;
    TRY(tw_reader_open(set, &reader));
    for (int64_t i = 0; i < tw_dataset_pairs(set); i++) {
        if (tw_dataset_pair(reader, i, &pair) != TW_OK) {
            if (bad++ == 0) put_text(o, "first_bad_pair", tw_last_error());
            continue;
        }
        int64_t n = characters(pair.text, pair.text_bytes);
        good++, length += n;
        if (n > longest) longest = n;
    }
    tw_reader_close(reader);
    put_int(o, "bad_pairs", bad);
    if (good) put_real(o, "caption_characters_mean", round(100.0 * (double)length / (double)good) / 100.0);
    if (good) put_int(o, "caption_characters_max", longest);
    return TW_OK;
}

static tw_status info_split(const char *folder, json_t *o) {
    tw_dataset *set;
    TRY(tw_dataset_open(folder, &set));
    put_text(o, "kind", "data set");
    put_text(o, "path", folder);
    put_int(o, "pairs", tw_dataset_pairs(set));
    put_int(o, "images", tw_dataset_images(set));
    tw_status status = read_pairs(set, o);
    tw_dataset_close(set);
    return status;
}

/* ---- feature files ---- */

static tw_status info_features(const char *path, json_t *o) {
    static const char *const kinds[] = {"image", "text", "unknown"};
    tw_features *f;
    struct stat info;
    TRY(tw_features_load(path, &f));
    put_text(o, "kind", "features");
    put_text(o, "path", path);
    put_text(o, "of", kinds[f->kind]);
    put_int(o, "count", f->n);
    put_int(o, "dimension", f->dim);
    put_text(o, "ids", !f->ids ? "none" : f->n && f->ids[0].is_integer ? "integers" : "texts");
    put_text(o, "values", "f32");
    put_text(o, "model", f->model);
    if (stat(path, &info) == 0) put_int(o, "bytes", (int64_t)info.st_size);
    tw_features_free(f);
    return TW_OK;
}

/* ---- which of them it is ---- */

static bool is_folder(const char *folder, const char *name) {
    char *path = tw_path_join(folder, name);
    bool yes = path && tw_is_folder(path);
    free(path);
    return yes;
}

/* What the names in a folder say about it. */
typedef struct folder_look {
    bool run;     /* checkpoints or `latest` */
    bool dataset; /* imgs, or imgs-00000-of-... */
} folder_look;

static tw_status look_into(const char *path, folder_look *look) {
    *look = (folder_look){0};
    DIR *dir = opendir(path);
    if (!dir) return FAIL(TW_ERR_IO, "cannot read the folder %s: %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, "latest") == 0 || strncmp(e->d_name, "epoch_", 6) == 0) look->run = true;
        if (strncmp(e->d_name, "imgs", 4) == 0 && is_folder(path, e->d_name)) look->dataset = true;
    }
    closedir(dir);
    return TW_OK;
}

static int not_hidden(const struct dirent *e) {
    return e->d_name[0] != '.';
}

/* A folder of splits, as prepare makes it: "splits" gets one entry each. */
static tw_status info_splits(const char *folder, json_t *o) {
    struct dirent **names;
    int n = scandir(folder, &names, not_hidden, alphasort);
    if (n < 0) return FAIL(TW_ERR_IO, "cannot read the folder %s: %s", folder, strerror(errno));
    json_t *splits = json_object();
    tw_status status = TW_OK;
    for (int i = 0; i < n; i++) {
        folder_look look = {0};
        char *path = tw_path_join(folder, names[i]->d_name);
        if (status == TW_OK && path && is_folder(folder, names[i]->d_name)) status = look_into(path, &look);
        if (status == TW_OK && look.dataset) {
            json_t *split = json_object();
            status = info_split(path, split);
            json_object_set_new(splits, names[i]->d_name, split);
        }
        free(path);
        free(names[i]);
    }
    free(names);
    if (status == TW_OK && json_object_size(splits) == 0)
        status = FAIL(TW_ERR_NOT_FOUND, "%s is neither a run folder (no checkpoint) nor a data set (no imgs)",
                      folder);
    put_text(o, "kind", "data sets");
    put_text(o, "path", folder);
    json_object_set_new(o, "splits", splits);
    return status;
}

static tw_status info_folder(const char *path, const tw_info_options *options, json_t *o) {
    folder_look look;
    TRY(look_into(path, &look));
    if (look.run) return info_run(path, options, o);
    if (tw_hf_is_folder(path)) return tw_info_weights(path, options, o);
    if (look.dataset) return info_split(path, o);
    if (!is_folder(path, "lmdb")) return info_splits(path, o);
    char *inner = tw_path_join(path, "lmdb");
    if (!inner) return FAIL(TW_ERR_MEMORY, "%s: no memory for a file name", path);
    tw_status status = info_splits(inner, o);
    free(inner);
    return status;
}

static tw_status info_any(const char *path, const tw_info_options *options, json_t *o) {
    struct stat info;
    char kind[TW_SEAL_KIND_BYTES];
    if (stat(path, &info) != 0) return FAIL(TW_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return info_folder(path, options, o);
    TRY(tw_seal_kind(path, kind));
    size_t n = strlen(path);
    bool table =
        (n > 4 && strcmp(path + n - 4, ".npy") == 0) || (n > 6 && strcmp(path + n - 6, ".jsonl") == 0);
    if (strcmp(kind, "features") == 0 || (!kind[0] && table)) return info_features(path, o);
    tw_source_kind weights;
    if (kind[0] || (n > 3 && strcmp(path + n - 3, ".h5") == 0)) return info_checkpoint(path, options, o);
    if (info.st_size == 0) return FAIL(TW_ERR_FORMAT, "%s is empty", path);
    tw_status status = tw_source_kind_of(path, &weights);
    if (status == TW_ERR_FORMAT)
        return FAIL(
            TW_ERR_FORMAT,
            "%s is nothing that tuwen knows, or its first bytes are damaged. Known are: tuwen's "
            "checkpoints and feature files (.h5), PyTorch's weights (.pt, .pth, .bin), safetensors, "
            "features as .npy or .jsonl; and folders: runs, splits of a data set and Hugging Face models",
            path);
    TRY(status);
    return weights == TW_SOURCE_TUWEN ? info_checkpoint(path, options, o) : tw_info_weights(path, options, o);
}

/* ---- printing ---- */

static void print_text(const char *text, int indent) {
    for (const char *end; *text; text = *end ? end + 1 : end) {
        end = text + strcspn(text, "\n");
        printf("%*s%.*s\n", indent, "", (int)(end - text), text);
    }
}

static void print_object(json_t *o, int indent) {
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value) {
        printf("%*s%s:", indent, "", key);
        if (json_is_object(value)) {
            printf("\n");
            print_object(value, indent + 2);
        } else if (json_is_string(value) && strchr(json_string_value(value), '\n')) {
            printf("\n");
            print_text(json_string_value(value), indent + 2);
        } else if (json_is_string(value)) {
            printf(" %s\n", json_string_value(value));
        } else {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
            printf(" %s\n", text ? text : "");
            free(text);
        }
    }
}

tw_status tw_command_info(int argc, char **argv) {
    const char *path = NULL;
    bool as_json = false, help = false;
    tw_info_options about = {.batch = 64};
    const tw_option rows[] = {
        {.name = "PATH",
         .type = TW_OPTION_POSITIONAL,
         .target = &path,
         .required = true,
         .help =
             "checkpoint, run folder, weights of other tools, data set (a split or a folder of splits), or "
             "feature file"},
        {.name = "batch",
         .type = TW_OPTION_INT,
         .target = &about.batch,
         .range = "[1, 1048576]",
         .help = "images, texts or pairs at a time, for the memory that a model takes"},
        {.name = "precision",
         .type = TW_OPTION_CHOICE,
         .target = &about.precision,
         .choices = "f32|bf16",
         .help = "type of activations and products, likewise"},
        {.name = "mask_ratio",
         .type = TW_OPTION_FLOAT,
         .target = &about.mask_ratio,
         .range = "[0, 0.95]",
         .help = "share of the patches left out in training, likewise"},
        {.name = "model",
         .type = TW_OPTION_STRING,
         .target = &about.model,
         .value = "NAME",
         .help = "description in configs/models, or YAML file; only where shapes do not say all"},
        {.name = "json", .type = TW_OPTION_FLAG, .target = &as_json, .help = "print one JSON object"},
    };
    const tw_options options = {
        .command = "info",
        .summary =
            "Says what is in a file or folder, checks every byte of a checkpoint, and says what memory a "
            "model takes.",
        .example = "tuwen info runs/demo/best\ntuwen info clip_cn_vit-b-16.pt --batch 128",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    TRY(tw_options_parse(&options, argc, argv, &help));
    if (help) return TW_OK;
    json_t *o = json_object();
    tw_status status = o ? info_any(path, &about, o) : FAIL(TW_ERR_MEMORY, "no memory for the description");
    if (status == TW_OK && as_json) {
        json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        printf("\n");
    } else if (status == TW_OK) {
        print_object(o, 0);
    }
    json_decref(o);
    return status;
}
