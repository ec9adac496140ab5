/* `tuwen prepare`: data sets of several kinds into shards. */
#include "data/prepare.h"
#include "data/atomic_file.h"
#include "data/files.h"
#include "data/tokenizer.h"
#include "train/clock.h"
#include "train/commands/commands.h"
#include "train/options.h"
#include "train/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct arguments {
    const char *data_dir, *folder, *splits;
    const char *tsv, *jsonl, *table, *images, *lmdb, *output;
    const char *make_vocab, *bad_log;
    int64_t shards, vocab_size;
    int format, check;
    bool strict, force, number_images, help;
} arguments;

/* What the callbacks work on. */
typedef struct session {
    FILE *bad_log;
    const char *bad_log_path;
    tw_vocab_builder *vocab;
    bool terminal, drawn;
    double started, last_drawn;
} session;

static tw_status parse(int argc, char **argv, arguments *a) {
    const tw_option rows[] = {
        {.name = "DIR",
         .type = TW_OPTION_POSITIONAL,
         .target = &a->folder,
         .help = "the same as --data_dir DIR"},
        {.name = "data_dir",
         .type = TW_OPTION_STRING,
         .target = &a->data_dir,
         .value = "DIR",
         .help = "folder with <split>_imgs.tsv and <split>_texts.jsonl; the output is DIR/lmdb/<split>"},
        {.name = "splits",
         .type = TW_OPTION_STRING,
         .target = &a->splits,
         .value = "A,B",
         .help = "splits in --data_dir; left out: those of train, valid and test that are there"},
        {.name = "tsv",
         .type = TW_OPTION_STRING,
         .target = &a->tsv,
         .value = "FILE",
         .help = "images, image_id<TAB>base64 a line"},
        {.name = "jsonl",
         .type = TW_OPTION_STRING,
         .target = &a->jsonl,
         .value = "FILE",
         .help = "texts for --tsv, {\"text_id\": …, \"text\": …, \"image_ids\": […]} a line"},
        {.name = "table",
         .type = TW_OPTION_STRING,
         .target = &a->table,
         .value = "FILE",
         .help = "image files and texts: .csv, .tsv or .jsonl with the columns image and text"},
        {.name = "images",
         .type = TW_OPTION_STRING,
         .target = &a->images,
         .value = "DIR",
         .help = "folder that the paths in --table start from; left out: the folder of the table"},
        {.name = "number_images",
         .type = TW_OPTION_FLAG,
         .target = &a->number_images,
         .help = "with --table: image ids are numbers, not paths (always with --format original)"},
        {.name = "lmdb",
         .type = TW_OPTION_STRING,
         .target = &a->lmdb,
         .value = "DIR",
         .help = "a prepared split to convert, the original tool's or tuwen's"},
        {.name = "output",
         .type = TW_OPTION_STRING,
         .target = &a->output,
         .value = "DIR",
         .help = "split to write, for example data/lmdb/train; needed without --data_dir"},
        {.name = "shards",
         .type = TW_OPTION_INT,
         .target = &a->shards,
         .range = "[1, 1000]",
         .help = "LMDB environments for images, and as many for pairs"},
        {.name = "format",
         .type = TW_OPTION_CHOICE,
         .target = &a->format,
         .choices = "raw|original",
         .help = "raw: image bytes, pairs in JSON; original: base64 and pickles, for the original code"},
        {.name = "check_images",
         .type = TW_OPTION_CHOICE,
         .target = &a->check,
         .choices = "none|headers|decode",
         .help = "how closely each image is looked at; decode takes the longest and finds all"},
        {.name = "strict",
         .type = TW_OPTION_FLAG,
         .target = &a->strict,
         .help = "end at the first bad record; otherwise bad records are counted, named and left out"},
        {.name = "bad_log",
         .type = TW_OPTION_STRING,
         .target = &a->bad_log,
         .value = "FILE",
         .help = "write a line for every bad record to FILE"},
        {.name = "force",
         .type = TW_OPTION_FLAG,
         .target = &a->force,
         .help = "replace a split that is already there"},
        {.name = "make_vocab",
         .type = TW_OPTION_STRING,
         .target = &a->make_vocab,
         .value = "FILE",
         .help = "write a vocabulary of the texts (of the split named train, if there are several)"},
        {.name = "vocab_size",
         .type = TW_OPTION_INT,
         .target = &a->vocab_size,
         .range = "[6, 1000000]",
         .help = "lines of --make_vocab at most"},
    };
    const tw_options options = {
        .command = "prepare",
        .summary =
            "Reads a data set, checks every record and writes shards (LMDB) to train and evaluate from.",
        .example = "tuwen prepare --data_dir data --splits train,valid\n"
                   "  tuwen prepare --table photos.csv --images photos --output data/lmdb/train\n"
                   "  tuwen prepare --lmdb old/lmdb/train --output new/lmdb/train --shards 4",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, &a->help);
}

/* One way in, and what belongs to it. */
static tw_status check_arguments(arguments *a) {
    if (a->folder && a->data_dir)
        return FAIL(TW_ERR_CONFIG, "prepare: DIR and --data_dir are the same: give one");
    if (a->folder) a->data_dir = a->folder;
    int ways = (a->data_dir != NULL) + (a->tsv != NULL) + (a->table != NULL) + (a->lmdb != NULL);
    if (ways != 1)
        return FAIL(TW_ERR_CONFIG,
                    "prepare: give one of --data_dir, --tsv, --table and --lmdb%s; see tuwen prepare --help",
                    ways ? ", not several" : "");
    if (a->data_dir && a->output)
        return FAIL(TW_ERR_CONFIG,
                    "prepare: --data_dir writes to DIR/lmdb/<split>: for --output give --tsv and --jsonl");
    if (!a->data_dir && !a->output)
        return FAIL(TW_ERR_CONFIG, "prepare: --output is missing, the folder to write");
    if (a->splits && !a->data_dir) return FAIL(TW_ERR_CONFIG, "prepare: --splits goes with --data_dir");
    if (a->jsonl && !a->tsv) return FAIL(TW_ERR_CONFIG, "prepare: --jsonl goes with --tsv");
    if (a->images && !a->table) return FAIL(TW_ERR_CONFIG, "prepare: --images goes with --table");
    if (a->format == TW_SHARDS_ORIGINAL && a->shards != 1)
        return FAIL(TW_ERR_CONFIG, "prepare: --format original has one environment: leave --shards out");
    return TW_OK;
}

/* ---- callbacks ---- */

static void clear_line(session *s) {
    if (s->drawn) (void)fputs("\r\033[K", stderr);
    s->drawn = false;
}

static void on_bad(void *context, tw_bad_kind kind, const char *message) {
    session *s = context;
    (void)kind;
    /* Checked with ferror when it is closed. */
    if (s->bad_log) (void)fprintf(s->bad_log, "%s\n", message);
}

static void on_progress(void *context, const char *file, int64_t bytes, int64_t size, int64_t records) {
    session *s = context;
    if (!s->terminal) return;
    double t = tw_seconds();
    if (t - s->last_drawn < 0.1) return;
    s->last_drawn = t;
    s->drawn = true;
    double share = size > 0 ? (double)bytes / (double)size : 0;
    (void)fprintf(stderr, "\r\033[K%s  %3.0f %%  %lld records  %.0f s", file, 100 * share, (long long)records,
                  t - s->started);
    (void)fflush(stderr);
}

static tw_status on_text(void *context, const char *text, size_t bytes) {
    session *s = context;
    return tw_vocab_builder_add(s->vocab, text, bytes);
}

static bool should_stop(void *context) {
    (void)context;
    return tw_stop_requested(NULL);
}

/* ---- one split ---- */

static void print_bad(const tw_prepare_report *r) {
    for (int k = 1; k < TW_BAD_KINDS; k++) {
        if (r->bad[k] == 0) continue;
        (void)fprintf(stderr, "  %lld × %s\n", (long long)r->bad[k], tw_bad_kind_name((tw_bad_kind)k));
        for (int i = 0; i < TW_BAD_NAMED && r->named[k][i]; i++)
            (void)fprintf(stderr, "      %s\n", r->named[k][i]);
        if (r->bad[k] > TW_BAD_NAMED)
            (void)fprintf(stderr, "      and %lld more (--bad_log FILE names all)\n",
                          (long long)r->bad[k] - TW_BAD_NAMED);
    }
}

static void print_summary(const char *output, const tw_prepare_report *r, double seconds) {
    double mb = (double)r->image_bytes / 1e6;
    printf("%s: %lld pairs, %lld images, %lld texts; %.1f MB of images in %.1f s, %.0f MB/s, read back and "
           "verified\n",
           output, (long long)r->pairs, (long long)r->images, (long long)r->texts, mb, seconds,
           seconds > 0 ? mb / seconds : 0.0);
    if (r->texts_without_images > 0)
        printf("  %lld texts without image\n", (long long)r->texts_without_images);
    if (r->unused_images > 0) printf("  %lld images without text\n", (long long)r->unused_images);
    if (r->bad_total > 0) printf("  %lld bad records left out, listed above\n", (long long)r->bad_total);
    (void)fflush(stdout);
}

/* Where the paths of a table start: --images, or the table's own folder. */
static tw_status images_folder(const arguments *a, char *folder, size_t size) {
    char name[4096];
    if (!a->images) return tw_split_path(a->table, folder, name, size);
    return (size_t)snprintf(folder, size, "%s", a->images) < size
               ? TW_OK
               : FAIL(TW_ERR_ARGUMENT, "--images: path too long");
}

static tw_status import(const arguments *a, const char *tsv, const char *jsonl, const char *output,
                        const tw_prepare_options *options, tw_prepare_report *report) {
    if (a->lmdb) return tw_prepare_lmdb(a->lmdb, output, options, report);
    if (!a->table) return tw_prepare_tsv(tsv, jsonl, output, options, report);
    char folder[4096];
    TRY(images_folder(a, folder, sizeof folder));
    bool number = a->number_images || a->format == TW_SHARDS_ORIGINAL;
    return tw_prepare_table(a->table, folder, number, output, options, report);
}

static tw_status prepare_split(const arguments *a, session *s, const char *tsv, const char *jsonl,
                               const char *output, bool count_words) {
    const tw_prepare_options options = {
        .shards = {.format = (tw_shard_format)a->format, .shards = (int)a->shards, .replace = a->force},
        .check = (tw_image_check)a->check,
        .strict = a->strict,
        .context = s,
        .on_bad = on_bad,
        .on_progress = on_progress,
        .on_text = s->vocab && count_words ? on_text : NULL,
        .should_stop = should_stop,
    };
    tw_prepare_report report = {0};
    s->started = tw_seconds();
    tw_status status = import(a, tsv, jsonl, output, &options, &report);
    clear_line(s);
    if (report.bad_total > 0 && !a->strict) {
        (void)fprintf(stderr, "warning: %s: %lld bad records:\n", output, (long long)report.bad_total);
        print_bad(&report);
    }
    if (status == TW_OK) print_summary(output, &report, tw_seconds() - s->started);
    tw_prepare_report_free(&report);
    return status;
}

/* ---- all splits ---- */

static tw_status prepare_named(const arguments *a, session *s, const char *split, bool count_words) {
    char tsv[4096], jsonl[4096], output[4096];
    int n = snprintf(tsv, sizeof tsv, "%s/%s_imgs.tsv", a->data_dir, split);
    (void)snprintf(jsonl, sizeof jsonl, "%s/%s_texts.jsonl", a->data_dir, split);
    (void)snprintf(output, sizeof output, "%s/lmdb/%s", a->data_dir, split);
    if (n < 0 || n > 4000) return FAIL(TW_ERR_ARGUMENT, "path too long: %.100s…", a->data_dir);
    return prepare_split(a, s, tsv, jsonl, output, count_words);
}

static bool has_split(const arguments *a, const char *split) {
    char tsv[4096];
    (void)snprintf(tsv, sizeof tsv, "%s/%s_imgs.tsv", a->data_dir, split);
    return access(tsv, F_OK) == 0;
}

static tw_status default_splits(const arguments *a, char *list, size_t size) {
    static const char *const usual[] = {"train", "valid", "test"};
    list[0] = '\0';
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (has_split(a, usual[i])) (void)snprintf(list + strlen(list), size - strlen(list), ",%s", usual[i]);
    if (list[0] == '\0')
        return FAIL(TW_ERR_NOT_FOUND,
                    "%s: none of train_imgs.tsv, valid_imgs.tsv and test_imgs.tsv is there; name "
                    "the splits with --splits",
                    a->data_dir);
    memmove(list, list + 1, strlen(list));
    return TW_OK;
}

static tw_status prepare_all(const arguments *a, session *s) {
    if (!a->data_dir) return prepare_split(a, s, a->tsv, a->jsonl, a->output, true);
    char list[1024];
    if (!a->splits)
        TRY(default_splits(a, list, sizeof list));
    else if ((size_t)snprintf(list, sizeof list, "%s", a->splits) >= sizeof list)
        return FAIL(TW_ERR_CONFIG, "--splits: too long");
    bool has_train = false, many = strchr(list, ',') != NULL;
    char copy[1024], *rest = copy, *split;
    (void)snprintf(copy, sizeof copy, "%s", list);
    while ((split = strsep(&rest, ","))) has_train |= strcmp(split, "train") == 0;
    for (rest = list; (split = strsep(&rest, ","));) {
        if (*split == '\0' || strchr(split, '/'))
            return FAIL(TW_ERR_CONFIG, "--splits: '%s' is not the name of a split; separate names by commas",
                        split);
        TRY(prepare_named(a, s, split, !many || !has_train || strcmp(split, "train") == 0));
    }
    return TW_OK;
}

static tw_status write_vocab(const arguments *a, const session *s) {
    char *text;
    size_t bytes;
    int left_out;
    TRY(tw_vocab_builder_finish(s->vocab, (int)a->vocab_size, &text, &bytes, &left_out));
    int64_t lines = 0;
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    tw_atomic_file file;
    tw_status status = tw_atomic_file_open(&file, a->make_vocab);
    if (status == TW_OK) {
        (void)fwrite(text, 1, bytes, file.stream);
        status = tw_atomic_file_commit(&file);
    }
    free(text);
    if (status) return status;
    printf("%s: vocabulary of %lld tokens%s\n", a->make_vocab, (long long)lines,
           left_out ? "" : ", no character left out");
    if (left_out) printf("  %d characters did not fit: raise --vocab_size\n", left_out);
    return TW_OK;
}

static tw_status close_bad_log(session *s) {
    if (!s->bad_log) return TW_OK;
    bool failed = ferror(s->bad_log) != 0;
    failed |= fclose(s->bad_log) != 0;
    s->bad_log = NULL;
    return failed ? FAIL(TW_ERR_IO, "%s: could not be written: is the disk full?", s->bad_log_path) : TW_OK;
}

tw_status tw_command_prepare(int argc, char **argv) {
    arguments a = {.shards = 1, .vocab_size = 21128, .check = TW_CHECK_HEADERS};
    session s = {.terminal = isatty(STDERR_FILENO)};
    TRY(parse(argc, argv, &a));
    if (a.help) return TW_OK;
    TRY(check_arguments(&a));
    TRY(tw_signals_install());
    (void)signal(SIGXFSZ, SIG_IGN); /* a file-size limit is an error like any other, not a signal */
    if (a.bad_log && !(s.bad_log = fopen(a.bad_log, "we")))
        return FAIL(TW_ERR_IO, "%s: %s", a.bad_log, strerror(errno));
    s.bad_log_path = a.bad_log;
    tw_status status = a.make_vocab ? tw_vocab_builder_new(&s.vocab) : TW_OK;
    if (status == TW_OK) status = prepare_all(&a, &s);
    if (status == TW_OK && s.vocab) status = write_vocab(&a, &s);
    tw_vocab_builder_free(s.vocab);
    if (status == TW_OK) return close_bad_log(&s);
    if (s.bad_log) (void)fclose(s.bad_log); /* the first error stands */
    return status;
}
