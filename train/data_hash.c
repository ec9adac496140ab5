#include "train/data_hash.h"

#include "train/formats/xxhash64.h"

#include <string.h>

static void mix(uint64_t *h, const void *data, size_t bytes) {
    *h = tw_xxh64(data, bytes, *h);
}

enum { LOOKED_AT = 64 }; /* of a data set's records: a few megabytes, wherever they lie */

/* Number k of LOOKED_AT spread over n. */
static int64_t spread(int64_t n, int k) {
    return (int64_t)((double)(n - 1) * k / (LOOKED_AT - 1));
}

/* A record that cannot be read counts as such: what is bad is left out later, and counted. */
static void mix_image(tw_reader *reader, const tw_id *id, uint64_t *h) {
    tw_bytes image;
    mix(h, id->text, id->size);
    if (tw_dataset_image(reader, id->text, id->size, &image) == TW_OK)
        mix(h, image.data, image.size);
    else
        mix(h, "bad", 3);
}

static void mix_pair(tw_reader *reader, int64_t i, uint64_t *h) {
    tw_pair p;
    if (tw_dataset_pair(reader, i, &p) != TW_OK) {
        mix(h, "bad", 3);
        return;
    }
    mix(h, p.text, p.text_bytes);
    mix(h, p.text_id.text, p.text_id.size);
    mix_image(reader, &p.image_id, h);
}

tw_status tw_data_hash_pairs(const tw_dataset *data, uint64_t *h) {
    tw_reader *reader;
    int64_t pairs = tw_dataset_pairs(data);
    *h = 0;
    mix(h, &pairs, sizeof pairs);
    TRY(tw_reader_open(data, &reader));
    for (int k = 0; k < LOOKED_AT && pairs > 0; k++) mix_pair(reader, spread(pairs, k), h);
    tw_reader_close(reader);
    return TW_OK;
}

tw_status tw_data_hash_pool(const tw_dataset *data, const tw_pool *pool, uint64_t *h) {
    tw_reader *reader;
    *h = 0;
    TRY(tw_reader_open(data, &reader));
    for (int k = 0; k < LOOKED_AT && pool->n_texts > 0; k++) {
        const tw_pool_text *t = &pool->texts[spread(pool->n_texts, k)];
        mix(h, t->id, strlen(t->id));
        mix(h, t->text, t->bytes);
    }
    for (int k = 0; k < LOOKED_AT && pool->n_images > 0; k++) {
        tw_id id;
        tw_status status = tw_dataset_image_at(reader, spread(pool->n_images, k), &id, NULL);
        if (status == TW_OK) mix_image(reader, &id, h);
    }
    tw_reader_close(reader);
    return TW_OK;
}
