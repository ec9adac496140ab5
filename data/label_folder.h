/* The folder of a zero-shot classification test (FACTS.md §5): test/<class>/…, files found recursively, and
 * label_cn.txt. Classes are the sorted folders, images are in the order that torchvision's ImageFolder gives.
 */
#ifndef TW_DATA_LABEL_FOLDER_H
#define TW_DATA_LABEL_FOLDER_H

#include "data/prompts.h"

typedef struct tw_label_folder {
    char *path;        /* of the folder that holds the class folders */
    char *labels_path; /* of the label file */
    int64_t classes;
    char **folders;    /* (classes) names in byte order; the rank is the class index */
    tw_prompts labels; /* (classes) */
    int64_t images;
    char **files;      /* (images) paths, class after class; .jpg .jpeg .png .webp */
    int32_t *class_of; /* (images) */
    int64_t ignored;   /* files that are no images by their names */
    /* .bmp .pgm .ppm .tif .tiff: images of the set to the reference, but nobody here decodes them. They are
     * left out of files, so that image numbers differ from the reference's where there are any. */
    int64_t undecoded;
    char first_undecoded[512];
    char warning[512]; /* what is allowed but looks like a mistake; "" if nothing does */
} tw_label_folder;

/* `folder` holds test/, or the class folders themselves; labels_path NULL: label_cn.txt in it, or, when
 * `folder` holds the classes, in the one above it. TW_ERR_NOT_FOUND: no such folder; no label file (the
 * message says where it was looked for). TW_ERR_IO. TW_ERR_FORMAT: no class folder; a class without an image
 * that is decoded here (its name); labels and folders do not match (which ones); a loop of symbolic links. */
tw_status tw_label_folder_open(const char *folder, const char *labels_path,
                               tw_label_folder **out) TW_MUST_CHECK;
void tw_label_folder_free(tw_label_folder *set); /* accepts NULL */

#endif
