/* Which text fits a picture best?
 *     cc similarity.c $(pkg-config --cflags --libs tuwen) -o similarity
 *     ./similarity model.h5 photo.jpg 一只猫 一条狗 一辆汽车 */
#include <stdio.h>
#include <stdlib.h>
#include <tuwen.h>

static int failed(void) {
    fprintf(stderr, "similarity: %s\n", tuwen_error());
    return EXIT_FAILURE;
}

static int compare(tuwen_model *model, const char *photo, int n, const char *const *texts) {
    size_t row = (size_t)tuwen_embed_dim(model) * sizeof(float);
    float *image = malloc(row), *features = malloc(row * (size_t)n);
    float *chances = malloc(sizeof(float) * (size_t)n);
    int ok = image && features && chances &&
             tuwen_encode_image_files(model, 1, &photo, image, NULL) == TUWEN_OK &&
             tuwen_encode_texts(model, n, texts, NULL, features, NULL) == TUWEN_OK &&
             tuwen_probabilities(model, 1, image, n, features, chances) == TUWEN_OK;
    for (int i = 0; ok && i < n; i++) printf("%6.2f %%  %s\n", 100.0 * (double)chances[i], texts[i]);
    free(image);
    free(features);
    free(chances);
    return ok ? EXIT_SUCCESS : failed();
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s CHECKPOINT IMAGE TEXT...\n", argv[0]);
        return 2;
    }
    tuwen_options options;
    tuwen_options_init(&options, sizeof options);
    options.text = TUWEN_TEXT_AS_IS; /* as `tuwen similarity` */
    tuwen_model *model;
    if (tuwen_load(argv[1], &options, &model) != TUWEN_OK) return failed();
    int result = compare(model, argv[2], argc - 3, (const char *const *)(argv + 3));
    tuwen_free(model);
    return result;
}
