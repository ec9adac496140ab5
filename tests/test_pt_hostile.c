/* Files made to harm their reader. Each must be refused with a clear message, in little time and memory, and
 * nothing in it may run: the pickles that would call something would leave a marker file. */
#include "train/formats/pt.h"

#include "pt_files.h"
#include "train/original_names.h"
#include "tw_test.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CALL(module, name) "c" module "\n" name "\n(" U("\x1d", "touch /tmp/tw_hostile_marker1") "tR"

START_TEST(accepts_the_harmless_one) {
    static const char pickle[] = DICT(TENSOR(FOUR, "K\0", "(K\2K\2t", "(K\1K\2t"));
    const char *path = pt_archive(pickle, sizeof pickle - 1);
    TW_ASSERT_OK(load(path));
    unlink(path);
}
END_TEST

/* Pickles that would run something, or make something else than data. */
static const hostile calls[] = {
    {"os.system", PICKLE("\x80\2" CALL("os", "system") "."), TW_ERR_UNSUPPORTED, "'os.system' at byte 2"},
    {"posix.system", PICKLE("\x80\2" CALL("posix", "system") "."), TW_ERR_UNSUPPORTED, "'posix.system'"},
    {"by the stack", PICKLE("\x80\4\x8c\2os\x8c\6system\x93\x8c\2id\x85R."), TW_ERR_UNSUPPORTED,
     "'os.system' at byte 14"},
    {"eval", PICKLE("\x80\2" CALL("builtins", "eval") "."), TW_ERR_UNSUPPORTED, "'builtins.eval'"},
    {"exec", PICKLE("c__builtin__\nexec\n(Vimport os\ntR."), TW_ERR_UNSUPPORTED, "'__builtin__.exec'"},
    {"subprocess", PICKLE("\x80\2" CALL("subprocess", "Popen") "."), TW_ERR_UNSUPPORTED,
     "'subprocess.Popen'"},
    {"inside a state dict", PICKLE(DICT(CALL("os", "system"))), TW_ERR_UNSUPPORTED, "'os.system' at byte 10"},
    {"after a tensor",
     PICKLE("\x80\2}(" U("\1", "w") TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") U("\1", "x")
                CALL("nt", "system") "u."),
     TW_ERR_UNSUPPORTED, "'nt.system'"},
    {"getattr chain", PICKLE("cbuiltins\ngetattr\n(cos\npopen\nX\4\0\0\0readtR."), TW_ERR_UNSUPPORTED,
     "'builtins.getattr' at byte 0"},
    {"dotted name", PICKLE("\x80\4\x8c\5torch\x8c\x0d_utils.system\x93."), TW_ERR_UNSUPPORTED,
     "'torch._utils.system'"},
    {"module with a newline's twin", PICKLE("ctorch \nFloatStorage\n."), TW_ERR_UNSUPPORTED, "'torch?.Float"},
    {"a pickle in a pickle", PICKLE("ctorch.storage\n_load_from_bytes\n(C\1.tR."), TW_ERR_UNSUPPORTED,
     "'torch.storage._load_from_bytes'"},
    {"torch.load", PICKLE("ctorch\nload\n(Va\ntR."), TW_ERR_UNSUPPORTED, "'torch.load'"},
    {"numpy array", PICKLE("cnumpy.core.multiarray\n_reconstruct\n."), TW_ERR_UNSUPPORTED, "_reconstruct'"},
    {"INST", PICKLE("(Vid\nios\nsystem\n."), TW_ERR_UNSUPPORTED, "'os.system' at byte 5"},
    {"OBJ", PICKLE("(ccollections\nOrderedDict\nVid\no."), TW_ERR_UNSUPPORTED, "OBJ at byte"},
    {"NEWOBJ",
     PICKLE("\x80\2"
            "ccollections\nOrderedDict\n)\x81."),
     TW_ERR_UNSUPPORTED, "NEWOBJ at byte"},
    {"NEWOBJ_EX",
     PICKLE("\x80\4"
            "ccollections\nOrderedDict\n)}\x92."),
     TW_ERR_UNSUPPORTED, "NEWOBJ_EX"},
    {"EXT1", PICKLE("\x80\2\x82\1."), TW_ERR_UNSUPPORTED, "EXT1"},
    {"textual persistent id", PICKLE("Pstorage\n."), TW_ERR_UNSUPPORTED, "PERSID"},
    {"out-of-band buffer", PICKLE("\x80\5\x97."), TW_ERR_UNSUPPORTED, "NEXT_BUFFER"},
    {"call of a storage", PICKLE("ctorch\nFloatStorage\n(K\1tR."), TW_ERR_UNSUPPORTED,
     "call of 'torch.FloatStorage' at byte 24"},
    {"call of what is no name", PICKLE("Vos.system\n(Vid\ntR."), TW_ERR_FORMAT,
     "REDUCE calls what is no name"},
    {"call of a call", PICKLE("ctorch\nSize\n(K\1tR(K\1tR."), TW_ERR_FORMAT, "REDUCE calls what is no name"},
    {"call without tuple", PICKLE("ctorch\nSize\n]R."), TW_ERR_FORMAT, "without a tuple"},
    {"call of nothing", PICKLE(")R."), TW_ERR_FORMAT, "stack is empty"},
    {"BUILD of a dict", PICKLE("\x80\2}}b."), TW_ERR_UNSUPPORTED, "BUILD of a dict at byte 4"},
    {"BUILD of a tensor", PICKLE("\x80\2" TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "}b."), TW_ERR_UNSUPPORTED,
     "BUILD of a object of _rebuild_tensor_v2"},
    {"BUILD of a name", PICKLE("ctorch\nSize\n}b."), TW_ERR_UNSUPPORTED, "BUILD of a name at byte"},
    {"BUILD twice", PICKLE("cnumpy\ndtype\n(tR(t(tb(tb."), TW_ERR_UNSUPPORTED, "BUILD"},
    {"subclass made by a call",
     PICKLE(DICT("ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\n(Vid\nt}tR")), TW_ERR_UNSUPPORTED,
     "'os.system'"},
    {"subclass made by no tensor",
     PICKLE(DICT("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\nctorch\nTensor\n((((tttt}tR")),
     TW_ERR_FORMAT, "tensor 'w'"},
};

/* Pickles that lie about sizes, or whose reading would not end. */
static const hostile lies[] = {
    {"beyond the storage", PICKLE(DICT(TENSOR(FOUR, "K\0", "(K\5t", "(K\1t"))), TW_ERR_FORMAT,
     "tensor 'w': it reaches to element 4 of a storage of 4"},
    {"offset beyond it", PICKLE(DICT(TENSOR(FOUR, "K\4", "(K\1t", "(K\1t"))), TW_ERR_FORMAT, "to element 4"},
    {"negative offset", PICKLE(DICT(TENSOR(FOUR, "J\xff\xff\xff\xff", "(K\4t", "(K\1t"))), TW_ERR_FORMAT,
     "its offset"},
    {"negative stride", PICKLE(DICT(TENSOR(FOUR, "K\3", "(K\4t", "(J\xff\xff\xff\xfft"))), TW_ERR_FORMAT,
     "no number >= 0"},
    {"shape of 2^60", PICKLE(DICT(TENSOR(FOUR, "K\0", "(\x8a\x08\0\0\0\0\0\0\0\x10t", "(K\1t"))),
     TW_ERR_FORMAT, "reaches to"},
    {"shape of 2^60 without strides",
     PICKLE(DICT(TENSOR(FOUR, "K\0", "(\x8a\x08\0\0\0\0\0\0\0\x10t", "(K\0t"))), TW_ERR_FORMAT, "far larger"},
    {"product beyond 2^64",
     PICKLE(DICT(TENSOR(FOUR, "K\0", "(\x8a\5\0\0\0\0\1\x8a\5\0\0\0\0\1t", "(K\0K\0t"))), TW_ERR_FORMAT,
     "larger than any file"},
    {"stride beyond 2^63",
     PICKLE(DICT(TENSOR(FOUR, "K\0", "(K\3t", "(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ft"))), TW_ERR_FORMAT,
     "larger than any file"},
    {"integer of 80 bits", PICKLE("\x80\2\x8a\x0a\1\1\1\1\1\1\1\1\1\1."), TW_ERR_FORMAT, "64 bits"},
    {"more strides than sizes", PICKLE(DICT(TENSOR(FOUR, "K\0", "(K\4t", "(K\1K\1t"))), TW_ERR_FORMAT,
     "differ in length"},
    {"nine dimensions",
     PICKLE(DICT(TENSOR(FOUR, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"))),
     TW_ERR_UNSUPPORTED, "9 dimensions"},
    {"a storage larger than its entry",
     PICKLE(DICT(TENSOR(STORAGE("FloatStorage", "\1", "0", "K\5"), "K\0", "(K\4t", "(K\1t"))), TW_ERR_FORMAT,
     "its storage '0' has 16 bytes, 5 x f32 are expected"},
    {"a storage of 2^62 elements",
     PICKLE(DICT(
         TENSOR(STORAGE("FloatStorage", "\1", "0", "\x8a\x08\0\0\0\0\0\0\0\x40"), "K\0", "(K\4t", "(K\1t"))),
     TW_ERR_FORMAT, "its storage's size"},
    {"a storage that is not there",
     PICKLE(DICT(TENSOR(STORAGE("FloatStorage", "\1", "7", "K\4"), "K\0", "(K\4t", "(K\1t"))), TW_ERR_FORMAT,
     "no entry for its storage '7'"},
    {"a storage outside the archive",
     PICKLE(DICT(
         TENSOR(STORAGE("FloatStorage", "\x13", "../../../etc/passwd", "K\4"), "K\0", "(K\4t", "(K\1t"))),
     TW_ERR_FORMAT, "no entry for its storage '../"},
    {"a storage of two types",
     PICKLE("\x80\2}(" U("\1", "w") TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") U("\1", "x")
                TENSOR(STORAGE("LongStorage", "\1", "0", "K\2"), "K\0", "(K\2t", "(K\1t") "u."),
     TW_ERR_FORMAT, "tensor 'x': its storage '0' is described twice"},
    {"an untyped storage",
     PICKLE(DICT(TENSOR("(" U("\7", "storage") "ctorch.storage\nUntypedStorage\n" U("\1", "0")
                            U("\3", "cpu") "K\x10tQ",
                        "K\0", "(K\4t", "(K\1t"))),
     TW_ERR_UNSUPPORTED, "UntypedStorage"},
    {"a module as storage", PICKLE(DICT(TENSOR("(" U("\6", "module") "NNNNtQ", "K\0", "(K\4t", "(K\1t"))),
     TW_ERR_FORMAT, "no storage"},
    {"a storage of a size's type",
     PICKLE(DICT(TENSOR("(" U("\7", "storage") "ctorch\nSize\n" U("\1", "0") U("\3", "cpu") "K\4tQ", "K\0",
                        "(K\4t", "(K\1t"))),
     TW_ERR_FORMAT, "type is no storage"},
    {"a tensor without arguments", PICKLE(DICT("ctorch._utils\n_rebuild_tensor_v2\n(]]]]tR")), TW_ERR_FORMAT,
     "no storage"},
    {"a tensor of one argument", PICKLE(DICT("ctorch._utils\n_rebuild_tensor_v2\n(]tR")), TW_ERR_FORMAT,
     "the tensor's arguments"},
    {"two tensors of a name",
     PICKLE("\x80\2}(" U("\1", "w") TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") U("\1", "w")
                TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "u."),
     TW_ERR_FORMAT, "two tensors named 'w'"},
    {"a name with a zero byte", PICKLE("\x80\2}(" U("\3", "w\0x") TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "u."),
     TW_ERR_FORMAT, "zero byte"},
    {"a tensor as a name",
     PICKLE("\x80\2}(" TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "u."),
     TW_ERR_FORMAT, "is no name of a tensor"},
    {"no tensor", PICKLE("\x80\2}(" U("\5", "epoch") "K\1u."), TW_ERR_FORMAT,
     "no tensor (its keys: 'epoch')"},
    {"no dict", PICKLE("\x80\2]."), TW_ERR_FORMAT, "it holds a list"},
    {"nothing", PICKLE("."), TW_ERR_FORMAT, "stack is empty"},
    {"cut off", PICKLE("\x80\2}(X\1\0\0"), TW_ERR_FORMAT, "cut off"},
    {"a string of 2^63 bytes",
     PICKLE("\x80\4\x8d\0\0\0\0\0\0\0\x80"
            "a."),
     TW_ERR_FORMAT, "cut off"},
    {"a memo of 2^32 entries", PICKLE("\x80\2Nr\xff\xff\xff\xff."), TW_ERR_FORMAT, "memo index out of range"},
    {"a list in itself", PICKLE("\x80\2]q\0h\0a]h\0ah\0h\0a."), TW_ERR_FORMAT, "contains itself"},
    {"a dict in itself", PICKLE("\x80\2}q\0K\1h\0s."), TW_ERR_FORMAT, "contains itself"},
    {"an ordered dict of no pairs", PICKLE("ccollections\nOrderedDict\n(]K\1atR."), TW_ERR_FORMAT,
     "no list of pairs"},
    {"protocol 200", PICKLE("\x80\xc8."), TW_ERR_UNSUPPORTED, "protocol 200"},
};

static void refuse(const hostile *h) {
    const char *path = pt_archive(h->pickle, h->size);
    tw_status status = load(path);
    ck_assert_msg(status == h->code && strstr(tw_last_error(), h->part),
                  "%s: gave '%s' (%s), expected '%s' (%s)", h->name, tw_status_name(status),
                  status ? tw_last_error() : "", tw_status_name(h->code), h->part);
    ck_assert_msg(strstr(tw_last_error(), path) != NULL, "%s: '%s' lacks the file", h->name, tw_last_error());
    unlink(path);
}

START_TEST(refuses_calls) {
    limit_memory(4096);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) refuse(&calls[i]);
}
END_TEST

START_TEST(refuses_lies) {
    limit_memory(4096);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) refuse(&lies[i]);
}
END_TEST

/* ---- pickles that grow ---- */

static char *bomb;
static size_t bomb_size;
static void add(const char *bytes, size_t size) {
    memcpy(bomb + bomb_size, bytes, size);
    bomb_size += size;
}
#define ADD(literal) add("" literal, sizeof(literal) - 1)

static void refuse_bomb(const char *name, tw_status code, const char *part) {
    limit_memory(bomb_size);
    refuse(&(hostile){name, bomb, bomb_size, code, part});
    free(bomb);
}

static void new_bomb(size_t capacity) {
    bomb = malloc(capacity);
    bomb_size = 0;
}

/* Each dict holds the one before twice. */
START_TEST(refuses_billion_laughs) {
    new_bomb(4096);
    ADD("\x80\2" TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "q\0");
    for (int i = 1; i < 50; i++) {
        char level[] = {'}', '(', 'K', 1, 'h', (char)(i - 1), 'K', 2, 'h', (char)(i - 1), 'u', 'q', (char)i};
        add(level, sizeof level);
    }
    ADD(".");
    refuse_bomb("billion laughs", TW_ERR_UNSUPPORTED, "more than 4000000 values");
}
END_TEST

/* The same, ending below the limit of values: a million tensors out of a file of 1 KB. */
START_TEST(refuses_a_million_names) {
    new_bomb(4096);
    ADD("\x80\2" TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "q\0");
    for (int i = 1; i < 17; i++) {
        char level[] = {'}', '(', 'K', 1, 'h', (char)(i - 1), 'K', 2, 'h', (char)(i - 1), 'u', 'q', (char)i};
        add(level, sizeof level);
    }
    ADD(".");
    refuse_bomb("a million names", TW_ERR_UNSUPPORTED, "needs more memory than the file's size allows");
}
END_TEST

/* A state dict of n short names for one tensor, of some 13 bytes each. */
static const char *archive_of_names(int n) {
    char name[16];
    new_bomb((size_t)n * 16 + 512);
    ADD("\x80\2}(" U("\1", "w") TENSOR(FOUR, "K\0", "(K\4t", "(K\1t") "q\0");
    for (int i = 0; i < n; i++) {
        int size = snprintf(name, sizeof name, "X%c%c%c%c%05dh%c", 5, 0, 0, 0, i, 0);
        ck_assert_int_eq(size, 12);
        add(name, 12);
    }
    ADD("u.");
    const char *path = pt_archive(bomb, bomb_size);
    free(bomb);
    return path;
}

/* Whatever is done with the names before a model is recognised, too. */
START_TEST(names_cost_what_they_are_long) {
    enum { MANY = 20000, SOME = 6000 };
    tw_weights *w;
    tw_original original;
    const char *path = archive_of_names(MANY);
    limit_memory_to(bomb_size, 7u << 20);
    TW_ASSERT_FAILS(tw_pt_open(path, &w), TW_ERR_UNSUPPORTED, "more memory than the file's size allows");
    path = archive_of_names(SOME);
    TW_ASSERT_OK(tw_pt_open(path, &w));
    TW_ASSERT_OK(tw_original_open(w, &original));
    ck_assert_int_eq(tw_weights_count(original.weights), SOME + 1);
    ck_assert_int_ge(tw_weights_find(original.weights, "05999"), 0);
    tw_original_close(&original);
    unlink(path);
}
END_TEST

START_TEST(refuses_deep_nesting) {
    enum { DEPTH = 200000 };
    new_bomb(2 * DEPTH + 16);
    for (int i = 0; i < DEPTH; i++) ADD("(");
    for (int i = 0; i < DEPTH; i++) ADD("t");
    ADD(".");
    refuse_bomb("deep nesting", TW_ERR_UNSUPPORTED, "nested more than 64 deep");
}
END_TEST

/* One list copied again and again by OrderedDict(list). */
START_TEST(refuses_copies) {
    enum { N = 20000 };
    new_bomb(N * 40);
    ADD("\x80\2ccollections\nOrderedDict\nq\0"
        "](");
    for (int i = 0; i < N; i++) ADD("(NNl");
    ADD("e\x85q\1");
    for (int i = 0; i < N; i++) ADD("h\0h\1R0");
    ADD("}.");
    refuse_bomb("copies", TW_ERR_UNSUPPORTED, "bytes of memory");
}
END_TEST

START_TEST(refuses_many_values) {
    enum { N = 3 << 20 };
    new_bomb(N + 16);
    ADD("\x80\2](");
    for (int i = 0; i < N; i++) ADD(")");
    ADD("e.");
    refuse_bomb("many values", TW_ERR_UNSUPPORTED, "bytes of memory");
}
END_TEST

/* Many tensors that all see the whole of one storage. */
START_TEST(refuses_more_tensors_than_file) {
    enum { N = 2000 };
    char name[16];
    new_bomb(N * 200 + 64);
    ADD("\x80\2}(");
    for (int i = 0; i < N; i++) {
        int n = snprintf(name, sizeof name, "X%c%c%c%ct%04d", 5, 0, 0, 0, i);
        ck_assert_int_eq(n, 10);
        add(name, 10);
        ADD(TENSOR(FOUR, "K\0", "(M\x10\x27K\4t", "(K\0K\1t"));
    }
    ADD("u.");
    refuse_bomb("more tensors than file", TW_ERR_FORMAT, "far larger than the file");
}
END_TEST

TW_TEST_MAIN("pt_hostile", accepts_the_harmless_one, refuses_calls, refuses_lies, refuses_billion_laughs,
             refuses_a_million_names, names_cost_what_they_are_long, refuses_deep_nesting, refuses_copies,
             refuses_many_values, refuses_more_tensors_than_file)
