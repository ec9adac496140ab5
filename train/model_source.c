#include "train/model_source.h"

#include "data/files.h"
#include "train/checkpoint_weights.h"
#include "train/formats/pt.h"
#include "train/formats/safetensors.h"
#include "train/formats/seal.h"
#include "train/model_file.h"
#include "train/model_io.h"
#include "train/recognise.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what it is ---- */

static bool has_file(const char *folder, const char *name) {
    char path[4352];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path && access(path, F_OK) == 0;
}

static tw_status kind_of_folder(const char *path, tw_source_kind *out) {
    if (has_file(path, "latest")) {
        *out = TW_SOURCE_TUWEN;
    } else if (tw_hf_is_folder(path)) {
        *out = TW_SOURCE_HF_FOLDER;
    } else {
        return FAIL(
            TW_ERR_FORMAT,
            "%s is neither a run folder (no `latest`) nor a Hugging Face folder (no model.safetensors, "
            "pytorch_model.bin or index of either)",
            path);
    }
    return TW_OK;
}

static bool looks_like_safetensors(const unsigned char *head, size_t n, int64_t size) {
    uint64_t length = 0;
    if (n < 9 || head[8] != '{') return false;
    memcpy(&length, head, 8);
    return length >= 2 && length <= (uint64_t)size;
}

/* A pickle of protocol 2 and later: what torch.save wrote before it used zip; and tar files before that. */
static bool looks_like_pytorch(const unsigned char *head, size_t n) {
    return n >= 4 && (memcmp(head, "PK\3\4", 4) == 0 || (head[0] == 0x80 && head[1] >= 2 && head[1] <= 5));
}

static tw_status kind_of_file(const char *path, int64_t size, tw_source_kind *out) {
    unsigned char head[16];
    char seal[TW_SEAL_KIND_BYTES];
    FILE *f;
    TRY(tw_open_stream(path, &f));
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    TRY(tw_seal_kind(path, seal));
    static const char hdf5[] = "\x89HDF";
    if (seal[0] || (n >= 4 && memcmp(head, hdf5, 4) == 0))
        *out = TW_SOURCE_TUWEN;
    else if (looks_like_safetensors(head, n, size))
        *out = TW_SOURCE_SAFETENSORS;
    else if (looks_like_pytorch(head, n))
        *out = TW_SOURCE_PYTORCH;
    else
        return FAIL(TW_ERR_FORMAT,
                    "%s is no weight file that tuwen knows: neither a tuwen checkpoint, nor a PyTorch file "
                    "(.pt, .bin), nor safetensors",
                    path);
    return TW_OK;
}

tw_status tw_source_kind_of(const char *path, tw_source_kind *out) {
    struct stat st;
    if (stat(path, &st) != 0) return FAIL(TW_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return kind_of_folder(path, out);
    return kind_of_file(path, (int64_t)st.st_size, out);
}

/* ---- opening ---- */

static tw_status open_foreign(tw_model_source *s) {
    tw_weights *w;
    if (s->kind == TW_SOURCE_PYTORCH)
        TRY(tw_pt_open(s->path, &w));
    else if (s->kind == TW_SOURCE_SAFETENSORS)
        TRY(tw_safetensors_open(s->path, &w));
    else
        TRY(tw_hf_folder_open(s->path, &w));
    return tw_original_open(w, &s->original);
}

/* A config.json beside a .pt belongs to something else. */
static tw_status read_config(tw_model_source *s) {
    if (s->kind == TW_SOURCE_PYTORCH && !s->original.hugging_face) return TW_OK;
    tw_status status = tw_hf_config_read(s->folder, &s->hf_config);
    if (status == TW_ERR_NOT_FOUND) return TW_OK;
    s->has_hf_config = status == TW_OK;
    return status;
}

static tw_status set_folder(tw_model_source *s) {
    const char *slash = strrchr(s->path, '/');
    bool is_folder = tw_is_folder(s->path);
    int length = is_folder ? (int)strlen(s->path) : slash ? (int)(slash - s->path + (slash == s->path)) : 1;
    if (snprintf(s->folder, sizeof s->folder, "%.*s", length, is_folder || slash ? s->path : ".") >=
        (int)sizeof s->folder)
        return FAIL(TW_ERR_ARGUMENT, "the path %.60s... is too long", s->path);
    return TW_OK;
}

static tw_status open_all(tw_model_source *s) {
    TRY(set_folder(s));
    if (s->checkpoint) return tw_checkpoint_params(s->checkpoint, &s->original.weights);
    TRY(tw_source_kind_of(s->path, &s->kind));
    if (s->kind == TW_SOURCE_TUWEN) {
        TRY(tw_checkpoint_open(s->path, &s->checkpoint));
        return tw_checkpoint_params(s->checkpoint, &s->original.weights);
    }
    TRY(open_foreign(s));
    return read_config(s);
}

tw_status tw_model_source_open(const char *path, tw_model_source *out) {
    *out = (tw_model_source){.path = path};
    tw_status status = open_all(out);
    if (status != TW_OK) tw_model_source_close(out);
    return status;
}

tw_status tw_model_source_of_checkpoint(tw_checkpoint *c, tw_model_source *out) {
    *out = (tw_model_source){.path = tw_checkpoint_path(c), .kind = TW_SOURCE_TUWEN, .checkpoint = c};
    tw_status status = open_all(out);
    if (status != TW_OK) tw_model_source_close(out);
    return status;
}

void tw_model_source_close(tw_model_source *s) {
    if (!s) return;
    tw_original_close(&s->original);
    tw_checkpoint_close(s->checkpoint);
    *s = (tw_model_source){0};
}

/* ---- description ---- */

/* A description given by the user, which must be of this architecture. */
static tw_status load_description(const tw_model_source *s, const char *model, tw_model_config had,
                                  tw_model_config *out) {
    tw_model_config given;
    TRY(tw_model_config_load(model, &given));
    if (!given.text.vocabulary) given.text.vocabulary = had.text.vocabulary;
    const struct {
        const char *key;
        int is, wanted;
    } sizes[] = {
        {"embed_dim", had.embed, given.embed},
        {"image.kind", (int)had.image.kind, (int)given.image.kind},
        {"image.stages[0]", had.image.stages[0], given.image.stages[0]},
        {"image.stages[1]", had.image.stages[1], given.image.stages[1]},
        {"image.stages[2]", had.image.stages[2], given.image.stages[2]},
        {"image.stages[3]", had.image.stages[3], given.image.stages[3]},
        {"image.patch", had.image.patch, given.image.patch},
        {"image.width", had.image.width, given.image.width},
        {"image.layers", had.image.layers, given.image.layers},
        {"text.vocabulary", had.text.vocabulary, given.text.vocabulary},
        {"text.positions", had.text.positions, given.text.positions},
        {"text.types", had.text.types, given.text.types},
        {"text.hidden", had.text.hidden, given.text.hidden},
        {"text.layers", had.text.layers, given.text.layers},
        {"text.intermediate", had.text.intermediate, given.text.intermediate},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (sizes[i].is != sizes[i].wanted)
            return FAIL(TW_ERR_CONFIG, "%s has %s %d, model %s says %d: it is another architecture", s->path,
                        sizes[i].key, sizes[i].is, model, sizes[i].wanted);
    given.image.resolution = had.image.resolution;
    *out = given;
    return TW_OK;
}

/* What neither shapes nor a description say. */
static void apply_hf_config(const tw_hf_config *c, tw_model_config *out) {
    if (c->has_image) {
        memcpy(out->image.pixel_mean, c->pixel_mean, sizeof c->pixel_mean);
        memcpy(out->image.pixel_std, c->pixel_std, sizeof c->pixel_std);
    }
    if (c->has_text) {
        out->text.hidden_dropout = c->hidden_dropout;
        out->text.attention_dropout = c->attention_dropout;
    }
}

tw_status tw_model_source_config(const tw_model_source *s, const char *model, tw_model_config *out) {
    bool described = model && *model;
    if (s->checkpoint) {
        tw_model_config same;
        TRY(tw_checkpoint_model_config(s->checkpoint, out));
        return described ? load_description(s, model, *out, &same) : TW_OK;
    }
    tw_known_heads heads = {0};
    if (described) {
        tw_model_config given;
        TRY(tw_model_config_load(model, &given));
        heads = (tw_known_heads){given.image.heads, given.text.heads};
    } else if (s->has_hf_config) {
        heads = (tw_known_heads){s->hf_config.image_heads, s->hf_config.text_heads};
    }
    TRY(tw_recognise_model(s->original.weights, heads, out));
    if (described) TRY(load_description(s, model, *out, out));
    if (s->has_hf_config) apply_hf_config(&s->hf_config, out);
    return TW_OK;
}
