/* `tuwen convert`: a model from any file to any other. */
#include "train/convert.h"
#include "train/clock.h"
#include "train/commands/commands.h"
#include "train/options.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct job {
    tw_convert_options convert;
    int to, precision;
    const char *target; /* --to, NULL if not given */
} job;

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    tw_convert_options *c = &j->convert;
    const tw_option rows[] = {
        {.name = "IN",
         .type = TW_OPTION_POSITIONAL,
         .target = &c->in,
         .required = true,
         .help = "tuwen checkpoint or run folder, original .pt, safetensors or Hugging Face folder"},
        {.name = "OUT",
         .type = TW_OPTION_POSITIONAL,
         .target = &c->out,
         .required = true,
         .help = "file or folder to write"},
        {.name = "to",
         .type = TW_OPTION_STRING,
         .target = &j->target,
         .value = "KIND",
         .help = "h5, pt or hf; without it by OUT's end: .h5, .pt, else a Hugging Face folder"},
        {.name = "precision",
         .type = TW_OPTION_CHOICE,
         .target = &j->precision,
         .choices = "keep|f32|f16|bf16",
         .help = "keep = every tensor as it came; f16, bf16 = mixed with f32 as in published files"},
        {.name = "optimizer",
         .type = TW_OPTION_FLAG,
         .target = &c->optimizer,
         .help = "Adam's moments and step counter too"},
        {.name = "vocab",
         .type = TW_OPTION_STRING,
         .target = &c->vocab,
         .value = "FILE",
         .help = "vocabulary; without it the checkpoint's, or vocab.txt beside it"},
        {.name = "model",
         .type = TW_OPTION_STRING,
         .target = &c->model,
         .value = "NAME",
         .help = "description in configs/models, or YAML file; only where shapes do not say all"},
        {.name = "force", .type = TW_OPTION_FLAG, .target = &c->force, .help = "replace OUT if it is there"},
    };
    const tw_options options = {
        .command = "convert",
        .summary =
            "Converts a model between tuwen checkpoints, the original code's .pt files and Hugging Face "
            "folders. Types, and tensors that no model needs, survive the way there and back.",
        .example = "tuwen convert clip_cn_vit-b-16.pt vit-b-16.h5 --vocab vocab.txt\n"
                   "tuwen convert runs/one/best my-model --to hf --precision f16",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, help);
}

static bool ends_in(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

static tw_status choose_target(job *j) {
    static const char *const names[] = {"h5", "pt", "hf"};
    const char *out = j->convert.out;
    if (!j->target) {
        j->convert.target = ends_in(out, ".h5")                           ? TW_TO_H5
                            : ends_in(out, ".pt") || ends_in(out, ".pth") ? TW_TO_PT
                                                                          : TW_TO_HF;
        return TW_OK;
    }
    for (int i = 0; i < 3; i++)
        if (strcmp(j->target, names[i]) == 0) {
            j->convert.target = (tw_convert_target)i;
            return TW_OK;
        }
    return FAIL(TW_ERR_CONFIG, "--to: '%s' is none of h5, pt, hf", j->target);
}

static void report(const job *j, const tw_convert_result *r, double seconds) {
    printf("%s: model %s, %lld tensors%s, %.1f MB in %.1f s%s", j->convert.out, r->config.name,
           (long long)r->tensors, r->has_optimizer ? " and optimizer state" : "", (double)r->bytes / 1e6,
           seconds, r->has_vocab || j->convert.target == TW_TO_PT ? "" : ", no vocabulary");
    if (r->left_out) printf(", %lld tensors that no model needs left out", (long long)r->left_out);
    printf("\n");
}

tw_status tw_command_convert(int argc, char **argv) {
    job j = {0};
    bool help = false;
    TRY(parse(argc, argv, &j, &help));
    if (help) return TW_OK;
    j.convert.precision = (tw_convert_precision)j.precision;
    TRY(choose_target(&j));
    const tw_log_options console = {.console = stderr, .progress_seconds = 10};
    tw_convert_result result;
    double start = tw_seconds();
    TRY(tw_log_open(&console, &j.convert.log));
    tw_status status = tw_convert(&j.convert, &result);
    tw_status closed = tw_log_close(j.convert.log);
    TRY(status);
    report(&j, &result, tw_seconds() - start);
    return closed;
}
