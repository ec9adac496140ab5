/* `tuwen shapes`: draws the demonstration data set. */
#include "data/shapes.h"
#include "train/clock.h"
#include "train/commands/commands.h"
#include "train/options.h"

#include <stdio.h>

static tw_status parse(int argc, char **argv, tw_shapes_options *shapes, const char **folder, bool *help) {
    int64_t train = shapes->train, valid = shapes->valid, size = shapes->px;
    int64_t captions = shapes->captions_per_image, seed = (int64_t)shapes->seed, singles = shapes->singles;
    int format = (int)shapes->format;
    bool force = false;
    const tw_option rows[] = {
        {.name = "DIR",
         .type = TW_OPTION_POSITIONAL,
         .target = folder,
         .required = true,
         .help = "folder to write to, made if it is not there"},
        {.name = "train",
         .type = TW_OPTION_INT,
         .target = &train,
         .range = "[1, 10000000]",
         .help = "training pictures"},
        {.name = "valid",
         .type = TW_OPTION_INT,
         .target = &valid,
         .range = "[1, 4000]",
         .help = "validation pictures, all of different scenes"},
        {.name = "size",
         .type = TW_OPTION_INT,
         .target = &size,
         .range = "[32, 1024]",
         .help = "width and height in pixels"},
        {.name = "captions_per_image",
         .type = TW_OPTION_INT,
         .target = &captions,
         .range = "[1, 12]",
         .help = "different captions for each picture"},
        {.name = "singles",
         .type = TW_OPTION_INT,
         .target = &singles,
         .range = "[0, 100]",
         .help = "% of the training pictures that show one object; validation always shows two"},
        {.name = "format",
         .type = TW_OPTION_CHOICE,
         .target = &format,
         .choices = "jpeg|png",
         .help = "of the pictures"},
        {.name = "seed",
         .type = TW_OPTION_INT,
         .target = &seed,
         .range = "[0, 9223372036854775807]",
         .help = "same seed and options: same bytes"},
        {.name = "force",
         .type = TW_OPTION_FLAG,
         .target = &force,
         .help = "replace files of the same names in DIR"},
    };
    const tw_options options = {
        .command = "shapes",
        .summary =
            "Draws the demonstration data set in MUGE format: one or two coloured shapes a picture, Chinese "
            "captions, training and validation scenes disjoint, half of the validation scenes siblings "
            "that differ in one attribute or an exchange.",
        .example = "tuwen shapes demo && tuwen prepare demo",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    TRY(tw_options_parse(&options, argc, argv, help));
    *shapes = (tw_shapes_options){.train = (int)train,
                                  .valid = (int)valid,
                                  .px = (int)size,
                                  .captions_per_image = (int)captions,
                                  .singles = (int)singles,
                                  .seed = (uint64_t)seed,
                                  .format = (tw_shapes_format)format,
                                  .replace = force};
    return TW_OK;
}

tw_status tw_command_shapes(int argc, char **argv) {
    tw_shapes_options options = tw_shapes_defaults();
    tw_shapes_summary summary;
    const char *folder = NULL;
    bool help = false;
    TRY(parse(argc, argv, &options, &folder, &help));
    if (help) return TW_OK;
    double start = tw_seconds();
    TRY(tw_shapes_write(folder, &options, &summary));
    printf("%s: train %d pictures of %d scenes, %d of one object; valid %d pictures of %d scenes, %d of them "
           "siblings\n",
           folder, options.train, summary.train_scenes, summary.singles, options.valid, options.valid,
           summary.siblings);
    printf("%d x %d pixels, %.1f MB of %s, vocabulary of %d, seed %llu, %.1f s\n", options.px, options.px,
           (double)summary.image_bytes / 1e6, options.format == TW_SHAPES_PNG ? "PNG" : "JPEG",
           summary.vocabulary, (unsigned long long)options.seed, tw_seconds() - start);
    return TW_OK;
}
