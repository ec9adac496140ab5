/* TorchScript archives: OpenAI CLIP's own files, and files made to harm their reader (test_pt_hostile.c's
 * rules). Their classes are data here: attributes by name. */
#include "train/formats/pt.h"

#include "pt_files.h"
#include "tw_test.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define W TENSOR(FOUR, "K\0", "(K\2K\2t", "(K\2K\1t")

static const hostile files[] = {
    {"a call among the attributes",
     PICKLE(
         "\x80\2" MODULE(U("\1", "x") "cos\nsystem\n(" U("\x1d", "touch /tmp/tw_hostile_marker1") "tR") "."),
     TW_ERR_UNSUPPORTED, "'os.system' at byte"},
    {"a class of another module", PICKLE("cos\nsystem\n)\x81."), TW_ERR_UNSUPPORTED, "'os.system' at byte 0"},
    {"a module's twin", PICKLE("c__torch__x\nM\n)\x81."), TW_ERR_UNSUPPORTED, "'__torch__x.M' at byte 0"},
    {"a module's beginning", PICKLE("c__torch\nM\n)\x81."), TW_ERR_UNSUPPORTED, "'__torch.M' at byte 0"},
    {"a module within the name", PICKLE("cos.__torch__\nsystem\n)\x81."), TW_ERR_UNSUPPORTED,
     "'os.__torch__.system' at byte 0"},
    {"a class called", PICKLE("c__torch__.os\nsystem\n(" U("\x1d", "touch /tmp/tw_hostile_marker1") "tR."),
     TW_ERR_UNSUPPORTED, "a call of a class of __torch__ at byte"},
    {"an object called", PICKLE(NEW("M") ")R."), TW_ERR_FORMAT, "REDUCE calls what is no name"},
    {"arguments", PICKLE("c__torch__\nM\n(" U("\2", "id") "t\x81."), TW_ERR_FORMAT, "NEWOBJ with arguments"},
    {"arguments that are no tuple", PICKLE("c__torch__\nM\n]\x81."), TW_ERR_FORMAT, "NEWOBJ with arguments"},
    {"an object of torch's", PICKLE("ctorch\nSize\n)\x81."), TW_ERR_UNSUPPORTED,
     "NEWOBJ of what is no class of __torch__ at byte"},
    {"an object of a string", PICKLE(U("\2", "os") ")\x81."), TW_ERR_UNSUPPORTED,
     "NEWOBJ of what is no class of __torch__"},
    {"an object of nothing", PICKLE(")\x81."), TW_ERR_FORMAT, "stack is empty"},
    {"NEWOBJ_EX", PICKLE("c__torch__\nM\n)}\x92."), TW_ERR_UNSUPPORTED, "NEWOBJ_EX at byte"},
    {"OBJ", PICKLE("(c__torch__\nM\no."), TW_ERR_UNSUPPORTED, "OBJ at byte"},
    {"INST", PICKLE("(i__torch__\nM\n."), TW_ERR_UNSUPPORTED, "'__torch__.M' at byte 1"},
    {"a state that is no dict", PICKLE(NEW("M") "(K\1tb."), TW_ERR_UNSUPPORTED,
     "BUILD with a tuple, a dict of attributes is read"},
    {"a second state", PICKLE(NEW("M") "}b}b."), TW_ERR_FORMAT, "a second state"},
    {"a state of the class", PICKLE("c__torch__\nM\n}b."), TW_ERR_UNSUPPORTED, "BUILD of a name at byte"},
    {"a module in itself", PICKLE(NEW("M") "q\0}(" U("\1", "m") "h\0ub."), TW_ERR_FORMAT, "contains itself"},
    {"attributes after its use", PICKLE(MODULE(U("\1", "m") NEW("M") "q\0") "0h\0}b."), TW_ERR_FORMAT,
     "contains itself, or grows after its use"},
    {"a state dict", PICKLE(DICT(W)), TW_ERR_FORMAT, "TorchScript archive that holds a dict, a module was"},
    {"a tensor", PICKLE(W "."), TW_ERR_FORMAT, "holds a tensor, a module was expected"},
    {"an object without attributes", PICKLE(NEW("M") "."), TW_ERR_FORMAT, "holds a object, a module was"},
    {"a class", PICKLE("c__torch__\nM\n."), TW_ERR_FORMAT, "holds a name, a module was"},
    {"no tensor", PICKLE(MODULE(U("\1", "m") MODULE("") U("\1", "i") "K\1") "."), TW_ERR_FORMAT,
     "modules of this TorchScript archive have no tensor"},
    {"tensors in a list only",
     PICKLE(MODULE(U("\1", "l") "ctorch.jit._pickle\nbuild_tensorlist\n(](" W "etR") "."), TW_ERR_FORMAT,
     "have no tensor"},
    {"two tensors of a name", PICKLE(MODULE(U("\1", "w") W U("\1", "w") W) "."), TW_ERR_FORMAT,
     "two tensors named 'w'"},
    {"two ways to a name", PICKLE(MODULE(U("\3", "a.w") W U("\1", "a") MODULE(U("\1", "w") W)) "."),
     TW_ERR_FORMAT, "two tensors named 'a.w'"},
    {"a tensor as an attribute's name", PICKLE(MODULE(W W) "."), TW_ERR_FORMAT, "is no name of a tensor"},
    {"an attribute without value", PICKLE(NEW("M") "}(" U("\1", "w") "ub."), TW_ERR_FORMAT,
     "a dict key without value"},
    {"beyond the storage", PICKLE(MODULE(U("\1", "w") TENSOR(FOUR, "K\0", "(K\5t", "(K\1t")) "."),
     TW_ERR_FORMAT, "tensor 'w': it reaches to element 4 of a storage of 4"},
    {"a storage that is not there",
     PICKLE(
         MODULE(U("\1", "w") TENSOR(STORAGE("FloatStorage", "\1", "7", "K\4"), "K\0", "(K\4t", "(K\1t")) "."),
     TW_ERR_FORMAT, "no entry for its storage '7'"},
    {"a quantized tensor", PICKLE(MODULE(U("\1", "w") "ctorch._utils\n_rebuild_qtensor\n)R") "."),
     TW_ERR_UNSUPPORTED, "'torch._utils._rebuild_qtensor'"},
};

static void refuse(const hostile *h) {
    const char *path = pt_archive_of(true, h->pickle, h->size);
    tw_status status = load(path);
    ck_assert_msg(status == h->code && strstr(tw_last_error(), h->part),
                  "%s: gave '%s' (%s), expected '%s' (%s)", h->name, tw_status_name(status),
                  status ? tw_last_error() : "", tw_status_name(h->code), h->part);
    ck_assert_msg(strstr(tw_last_error(), path) != NULL, "%s: '%s' lacks the file", h->name, tw_last_error());
    unlink(path);
}

START_TEST(refuses_what_is_no_data) {
    limit_memory(4096);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) refuse(&files[i]);
}
END_TEST

START_TEST(refuses_classes_elsewhere) {
    static const char pickle[] = "\x80\2" MODULE(U("\1", "w") W) ".";
    const char *path = pt_archive(pickle, sizeof pickle - 1);
    TW_ASSERT_FAILS(load(path), TW_ERR_UNSUPPORTED, "the name '__torch__.M' at byte 2 is refused");
    unlink(path);
}
END_TEST

/* ---- archives that grow ---- */

typedef struct bomb {
    char data[1 << 16];
    size_t size;
} bomb;

static void add(bomb *b, const char *bytes, size_t size) {
    ck_assert_uint_le(b->size + size, sizeof b->data);
    memcpy(b->data + b->size, bytes, size);
    b->size += size;
}
#define ADD(b, literal) add(b, "" literal, sizeof(literal) - 1)

/* Each module is twice in the next: 2^n ways to one tensor. */
static void add_doubling(bomb *b, int levels) {
    ADD(b, "\x80\2" MODULE(U("\1", "w") W) "q\0");
    for (int i = 1; i < levels; i++) {
        ADD(b, NEW("M") "}(" U("\1", "a") "h");
        add(b, (char[]){(char)(i - 1)}, 1);
        ADD(b, U("\1", "b") "h");
        add(b, (char[]){(char)(i - 1)}, 1);
        ADD(b, "ubq");
        add(b, (char[]){(char)i}, 1);
    }
    ADD(b, ".");
}

START_TEST(refuses_doubling_modules) {
    static bomb laughs, names;
    limit_memory(4096);
    add_doubling(&laughs, 30);
    refuse(&(hostile){"laughs", laughs.data, laughs.size, TW_ERR_UNSUPPORTED, "more than 4000000 values"});
    add_doubling(&names, 17);
    refuse(&(hostile){"names", names.data, names.size, TW_ERR_UNSUPPORTED,
                      "needs more memory than the file's size allows"});
}
END_TEST

START_TEST(refuses_deep_modules) {
    static bomb b;
    enum { DEPTH = 1000 };
    for (int i = 0; i < DEPTH; i++) ADD(&b, NEW("M") "}(" U("\1", "m"));
    ADD(&b, "N");
    for (int i = 0; i < DEPTH; i++) ADD(&b, "ub");
    ADD(&b, ".");
    limit_memory(b.size);
    refuse(&(hostile){"deep", b.data, b.size, TW_ERR_UNSUPPORTED, "nested more than 64 deep"});
}
END_TEST

/* ---- what is read ---- */

START_TEST(reads_a_tree_of_modules) {
    static const char pickle[] = "\x80\2" MODULE(
        U("\6", "visual") "c__torch__.multimodal.model\nVisual\n)\x81}(" U("\5", "conv1")
            MODULE(U("\6", "weight") W U("\4", "bias") "N")
                U("\4", "hook") "Nub" U("\x08", "training") "\x89" U(
                    "\5", "sizes") "ctorch.jit._pickle\nbuild_intlist\n](K\1K\2e\x85R" U("\5", "width")
                    TENSOR(FOUR, "K\3", "(t", "(t")) ".";
    const char *path = pt_archive_of(true, pickle, sizeof pickle - 1);
    tw_weights *w;
    float f[4], one;
    TW_ASSERT_OK(tw_pt_open(path, &w));
    ck_assert_str_eq(tw_weights_get_note(w)->kind, "TorchScript archive");
    ck_assert(tw_weights_get_note(w)->epoch == -1 && tw_weights_get_note(w)->step == -1);
    ck_assert_int_eq(tw_weights_count(w), 2);
    ck_assert_str_eq(tw_weights_at(w, 0)->name, "visual.conv1.weight");
    ck_assert_str_eq(tw_weights_at(w, 1)->name, "width");
    TW_ASSERT_OK(tw_weights_read_f32(w, 0, f, 4));
    TW_ASSERT_OK(tw_weights_read_f32(w, 1, &one, 1));
    ck_assert(f[0] == 1 && f[1] == 2 && f[2] == 3 && f[3] == 4 && one == 4);
    tw_weights_close(w);
    unlink(path);
}
END_TEST

/* As bytes: the two files have one image tower, some of it in f32 there and in f16 here. */
START_TEST(reads_openais_archive) {
    tw_weights *openai, *plain;
    int64_t found = 0;
    TW_ASSERT_OK(tw_pt_open(TW_SOURCE_DIR "/tests/golden/parts/openai.pt", &openai));
    TW_ASSERT_OK(tw_pt_open(TW_SOURCE_DIR "/tests/golden/convert/clip.pt", &plain));
    for (int64_t i = 0; i < tw_weights_count(plain); i++) {
        const tw_weight *t = tw_weights_at(plain, i);
        if (strncmp(t->name, "visual.", 7) != 0) continue;
        int64_t at = tw_weights_find(openai, t->name);
        ck_assert_msg(at >= 0 && tw_weights_at(openai, at)->count == t->count, "%s", t->name);
        float *a = malloc((size_t)t->count * sizeof *a), *b = malloc((size_t)t->count * sizeof *b);
        TW_ASSERT_OK(tw_weights_read_f32(plain, i, a, t->count));
        TW_ASSERT_OK(tw_weights_read_f32(openai, at, b, t->count));
        ck_assert_mem_eq(a, b, (size_t)t->count * sizeof *a);
        free(a);
        free(b);
        found++;
    }
    int64_t visual = 0;
    for (int64_t i = 0; i < tw_weights_count(openai); i++)
        visual += strncmp(tw_weights_at(openai, i)->name, "visual.", 7) == 0;
    ck_assert_int_eq(found, visual);
    ck_assert_int_eq(found, 32);
    static const char *const others[] = {"input_resolution", "context_length", "vocab_size", "logit_scale",
                                         "token_embedding.weight"};
    for (size_t i = 0; i < 5; i++) ck_assert_int_ge(tw_weights_find(openai, others[i]), 0);
    int64_t side = 0;
    TW_ASSERT_OK(tw_weights_read(openai, tw_weights_find(openai, "input_resolution"), &side));
    ck_assert_int_eq(side, 16);
    tw_weights_close(openai);
    tw_weights_close(plain);
}
END_TEST

TW_TEST_MAIN("pt_script", refuses_what_is_no_data, refuses_classes_elsewhere, refuses_doubling_modules,
             refuses_deep_modules, reads_a_tree_of_modules, reads_openais_archive)
