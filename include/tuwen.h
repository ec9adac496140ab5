/* libtuwen: images and Chinese texts into one space, from C, C++ or anything that can call C.
 *
 *     tuwen_model *model;
 *     if (tuwen_load("model.h5", NULL, &model) != TUWEN_OK) puts(tuwen_error());
 *     float *image = malloc(sizeof(float) * tuwen_embed_dim(model));
 *     tuwen_encode_image_files(model, 1, (const char *const[]){"cat.jpg"}, image, NULL);
 *     ...
 *     tuwen_free(model);
 *
 * Errors. Functions that can fail return a tuwen_status; tuwen_error() then says what, where and what to do.
 * The library never prints, exits or aborts.
 *
 * Threads. All functions may be called from any thread, several at once with one model too: reading and
 * decoding run side by side, the products of one model take turns. Only tuwen_free needs a model that
 * nobody uses any more. One thing the library cannot arrange: HDF5 is not thread-safe as it is usually built,
 * and tuwen_load reads with it (its own calls take turns). A program that uses HDF5 itself must not do so in
 * another thread while tuwen_load runs; other functions here do not use it. A call does not change the OpenMP
 * settings of the thread that makes it. As every program with OpenMP: do not go on in a child made by fork()
 * without exec.
 *
 * Memory. Arrays are the caller's, in C order (the last index moves fastest), and are not kept after a call.
 * Features are f32 of length 1 (L2), so the dot product of two is their cosine. After an error the contents
 * of output arrays are undefined.
 *
 * Repeatability. The same model, options and batch on the same machine give the same bits. An image's
 * features may differ in the last bits between batches of different sizes.
 *
 * ABI. Names begin with tuwen_ or TUWEN_. Functions are added, and change or go only with the library's
 * SOVERSION. tuwen_options may grow at its end and tells its own size; other structs and the values of
 * enumerations stay. HDF5, if the program uses it too, has its automatic error printing off after
 * tuwen_load. */
#ifndef TUWEN_H
#define TUWEN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TUWEN_API __attribute__((visibility("default")))
#else
#define TUWEN_API
#endif

typedef enum tuwen_status {
    TUWEN_OK = 0,
    TUWEN_ERR_ARGUMENT = 1,    /* the caller broke a function's contract */
    TUWEN_ERR_SHAPE = 2,       /* tensors of a checkpoint do not fit the model they should be */
    TUWEN_ERR_MEMORY = 3,      /* an allocation failed */
    TUWEN_ERR_IO = 4,          /* the operating system refused: no such file, no permission */
    TUWEN_ERR_FORMAT = 5,      /* the content of a file, image or text is not what it should be */
    TUWEN_ERR_CONFIG = 6,      /* an option's value is wrong */
    TUWEN_ERR_NOT_FOUND = 7,   /* no such file; no vocabulary */
    TUWEN_ERR_UNSUPPORTED = 8, /* well-formed, but this build or version cannot do it */
    TUWEN_ERR_NUMERIC = 9,     /* a value that must be finite is not */
    TUWEN_ERR_LIBRARY = 10,    /* a library below reported an error */
    TUWEN_ERR_INTERRUPTED = 11
} tuwen_status;

/* What the calling thread's last failed call has to say, UTF-8; "" before the first failure. Valid until the
 * thread's next failure. Never NULL. */
TUWEN_API const char *tuwen_error(void);
/* "format" for TUWEN_ERR_FORMAT, and so on; static. Never NULL. */
TUWEN_API const char *tuwen_status_name(int status);
/* The library's version, "0.1.0"; static. */
TUWEN_API const char *tuwen_version(void);

/* ---- a model ---- */

typedef struct tuwen_model tuwen_model;

enum { TUWEN_F32 = 0, TUWEN_BF16 = 1 }; /* tuwen_options.precision */
enum {
    TUWEN_TEXT_AS_TRAINED =
        0, /* lower-cased, “ and ” made ": as in training, `tuwen extract`, classification */
    TUWEN_TEXT_AS_IS = 1 /* as the quick API of the original code has it, and `tuwen similarity` */
};
enum {
    TUWEN_IMAGE_AS_TRAINED = 0, /* resized in the file's own mode (palette, gray, ...), then made RGB */
    TUWEN_IMAGE_RGB_FIRST = 1   /* made RGB, then resized: as zero-shot classification */
};

/* Always set with tuwen_options_init first. */
typedef struct tuwen_options {
    size_t size;       /* of the struct the caller was compiled with; set by tuwen_options_init */
    int32_t threads;   /* that compute and decode; 0: one a core, or what a CPU quota allows */
    int32_t precision; /* of products and activations: TUWEN_F32 or TUWEN_BF16. Features are f32 either way */
    const char *device; /* "cpu"; "cuda": the first GPU; "auto": a GPU if there is one. NULL: "cpu". Read by
                           tuwen_load only, as all strings here */
    const char *vocab;  /* vocabulary file; NULL: the checkpoint's own, or vocab.txt beside it */
    int32_t batch;      /* images or texts that run at once (1 to 65536); bounds the memory for activations */
    int32_t text;       /* TUWEN_TEXT_... */
    int32_t image;      /* TUWEN_IMAGE_... */
    int32_t resolution; /* pixels a side, 1 to 4096; 0: the model's; another one resizes its positions */
    int32_t context_length; /* tokens a text, 3 to 512, at most the model's positions; 0: the model's */
} tuwen_options;

/* The defaults: all cores, f32, "cpu", the checkpoint's vocabulary, batches of 32, as trained, the model's
 * own resolution and context length. Pass sizeof(tuwen_options). */
TUWEN_API void tuwen_options_init(tuwen_options *options, size_t size);

/* Loads a checkpoint: a file or folder of any kind that `tuwen info` knows. options may be NULL for the
 * defaults. *out is to be freed with tuwen_free; it is NULL after an error.
 * TUWEN_ERR_IO, TUWEN_ERR_NOT_FOUND: no such file, or no vocabulary (the message says where it was looked
 * for). TUWEN_ERR_FORMAT, TUWEN_ERR_SHAPE: damaged, not a checkpoint, or with missing or unknown tensors,
 * which are named. TUWEN_ERR_CONFIG: an option's value. TUWEN_ERR_UNSUPPORTED: a device that this build does
 * not have, or options of a newer version of this header that this library does not know. */
TUWEN_API tuwen_status tuwen_load(const char *checkpoint, const tuwen_options *options, tuwen_model **out);
/* Accepts NULL. */
TUWEN_API void tuwen_free(tuwen_model *model);

/* Of NULL all are 0, and the name is "". */
TUWEN_API int32_t tuwen_embed_dim(const tuwen_model *model);      /* values of a feature */
TUWEN_API int32_t tuwen_context_length(const tuwen_model *model); /* tokens of a text, [CLS] and [SEP] too */
TUWEN_API int32_t tuwen_resolution(const tuwen_model *model); /* pixels a side that images are resized to */
TUWEN_API const char *tuwen_name(const tuwen_model *model);   /* "ViT-B-16"; valid until tuwen_free */
TUWEN_API double
tuwen_logit_scale(const tuwen_model *model); /* exp of the parameter: 100 when trained long */

/* ---- images: features (n, embed_dim) ----
 *
 * JPEG, PNG and WebP, resized to the model's resolution with the aspect ratio ignored, as in training.
 * status (n) may be NULL: then the first bad image ends the call, whose message names it. Otherwise status[i]
 * is TUWEN_OK or why image i has no feature (its row is zeros), the call is TUWEN_OK, and tuwen_error() tells
 * of the last bad one; an image that is NULL, or for which there is no memory, is a bad one like others. n
 * may be 0. Messages count images and texts from 1: "image number 1" is the one at index 0. */

/* Paths as open() takes them. Messages begin with the path. */
TUWEN_API tuwen_status tuwen_encode_image_files(tuwen_model *model, int64_t n, const char *const *paths,
                                                float *features, int32_t *status);
/* Encoded files in memory: data[i] has sizes[i] bytes. Messages begin with "image number I". */
TUWEN_API tuwen_status tuwen_encode_image_bytes(tuwen_model *model, int64_t n, const void *const *data,
                                                const size_t *sizes, float *features, int32_t *status);

typedef struct tuwen_rgb {
    const uint8_t *pixels; /* rows from the top; R, G, B a pixel */
    int32_t width, height; /* 1 to 65500, at most 178956970 pixels */
    int64_t stride;        /* bytes from a row to the next, at least 3 * width; 0: 3 * width */
} tuwen_rgb;

/* Decoded pixels of any size. Messages as above. */
TUWEN_API tuwen_status tuwen_encode_image_rgb(tuwen_model *model, int64_t n, const tuwen_rgb *images,
                                              float *features, int32_t *status);

/* ---- texts: features (n, embed_dim) ----
 *
 * UTF-8; bytes (n) are their lengths, or NULL if they end in NUL. What is longer than the context is cut;
 * *truncated, unless NULL, counts such texts. TUWEN_ERR_FORMAT: not UTF-8, TUWEN_ERR_ARGUMENT: NULL; messages
 * begin with "text number I". */
TUWEN_API tuwen_status tuwen_encode_texts(tuwen_model *model, int64_t n, const char *const *texts,
                                          const size_t *bytes, float *features, int64_t *truncated);

/* ---- images against texts: (n_images, n_texts), one row an image ---- */

/* logit_scale * image . text; between features of length 1, logit_scale times their cosine. */
TUWEN_API tuwen_status tuwen_similarity(const tuwen_model *model, int64_t n_images, const float *images,
                                        int64_t n_texts, const float *texts, float *logits);
/* The softmax of that over the texts: each row sums to 1. */
TUWEN_API tuwen_status tuwen_probabilities(const tuwen_model *model, int64_t n_images, const float *images,
                                           int64_t n_texts, const float *texts, float *probabilities);

#ifdef __cplusplus
}
#endif

#endif
