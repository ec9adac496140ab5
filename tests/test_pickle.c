#include "data/pickle.h"
#include "tw_test.h"

static tw_pickle *parser;

static const tw_pickle_value *read_bytes(const char *data, size_t size) {
    const tw_pickle_value *root;
    TW_ASSERT_OK(tw_pickle_read(parser, data, size, &root));
    return root;
}
#define READ(literal) read_bytes("" literal, sizeof(literal) - 1)
#define REFUSE(literal, code, part)                                                                          \
    do {                                                                                                     \
        const tw_pickle_value *root_;                                                                        \
        TW_ASSERT_FAILS(tw_pickle_read(parser, "" literal, sizeof(literal) - 1, &root_), code, part);        \
        ck_assert_ptr_null(root_);                                                                           \
    } while (0)

static void is_str(const tw_pickle_value *v, const char *text) {
    ck_assert_int_eq(v->kind, TW_PICKLE_STR);
    ck_assert_msg(v->bytes.size == strlen(text) && memcmp(v->bytes.data, text, v->bytes.size) == 0,
                  "got '%.*s'", (int)v->bytes.size, v->bytes.data);
}

static void is_int(const tw_pickle_value *v, int64_t value) {
    ck_assert_int_eq(v->kind, TW_PICKLE_INT);
    ck_assert_int_eq(v->integer, value);
}

static void new_parser(void) {
    TW_ASSERT_OK(tw_pickle_new(1000, &parser));
}

/* Made by Python 3.11's pickle.dumps, the comment says of what. */
START_TEST(reads_scalars) {
    new_parser();
    ck_assert_int_eq(READ("N.")->kind, TW_PICKLE_NONE);
    ck_assert(READ("\x80\x04\x88.")->boolean);
    ck_assert(!READ("I00\n.")->boolean && READ("I00\n.")->kind == TW_PICKLE_BOOL);
    is_int(READ("I7\n."), 7);
    is_int(READ("L-5L\n."), -5);
    is_int(READ("K\xff."), 255);
    is_int(READ("M\xff\xff."), 65535);
    is_int(READ("J\xff\xff\xff\xff."), -1);
    is_int(READ("\x8a\x00."), 0);
    is_int(READ("\x8a\x06\x00\x00\x00\x00\x00\x01."), (int64_t)1 << 40);
    is_int(READ("\x8a\x05\x00\x00\x00\x00\xfe."), -((int64_t)1 << 33));
    is_int(READ("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80."), INT64_MIN);
    ck_assert_double_eq(READ("G?\xf8\x00\x00\x00\x00\x00\x00.")->real, 1.5);
    ck_assert_double_eq(READ("F-2.5e3\n.")->real, -2500.0);
    is_str(READ("V\\u56fe\\u6587 \xe9\\U0001f600\\u005cn \\\\u005c\\x\n."), "图文 é😀\\n \\\\u005c\\x");
    is_str(READ("X\x03\x00\x00\x00\xe5\x9b\xbe."), "图");
    is_str(READ("\x8d\x02\x00\x00\x00\x00\x00\x00\x00hi."), "hi");
    is_str(READ("S'it\\'s \\xe5\\x9b\\xbe\\t\\101'\n."), "it's 图\tA");
    ck_assert_int_eq(READ("U\x02\xff\xfe.")->kind, TW_PICKLE_BYTES);
    ck_assert_int_eq(READ("C\x02hi.")->kind, TW_PICKLE_BYTES);
    tw_pickle_free(parser);
}
END_TEST

START_TEST(reads_containers) {
    new_parser();
    /* {'a': [1, 2, 3], 'b': (None, 'a')}, protocol 4 */
    const tw_pickle_value *d = READ("\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01"
                                    "a\x94]\x94(K\x01K\x02K\x03"
                                    "e\x8c\x01"
                                    "b\x94Nh\x01\x86\x94u.");
    ck_assert_int_eq(d->kind, TW_PICKLE_DICT);
    ck_assert_uint_eq(d->items.size, 4);
    is_str(d->items.data[0], "a");
    ck_assert_int_eq(d->items.data[1]->kind, TW_PICKLE_LIST);
    ck_assert_uint_eq(d->items.data[1]->items.size, 3);
    is_int(d->items.data[1]->items.data[2], 3);
    ck_assert_int_eq(d->items.data[3]->kind, TW_PICKLE_TUPLE);
    is_str(d->items.data[3]->items.data[1], "a");
    ck_assert_uint_eq(d->values, 10);
    ck_assert_int_eq(d->depth, 2);
    /* [1, 'x'] and {'k': 2}, protocol 0 */
    const tw_pickle_value *l = READ("(lp0\nI1\naVx\np1\na.");
    ck_assert_uint_eq(l->items.size, 2);
    is_str(l->items.data[1], "x");
    is_int(READ("(dp0\nVk\np1\nI2\ns.")->items.data[1], 2);
    ck_assert_uint_eq(READ(").")->items.size, 0);
    tw_pickle_free(parser);
}
END_TEST

START_TEST(refuses_what_could_run) {
    new_parser();
    REFUSE("cos\nsystem\n(S'id'\ntR.", TW_ERR_UNSUPPORTED, "GLOBAL at byte 0 is refused");
    REFUSE("\x80\x04\x8c\x02os\x8c\x06system\x93.", TW_ERR_UNSUPPORTED, "STACK_GLOBAL");
    REFUSE("(K\x01tR.", TW_ERR_UNSUPPORTED, "REDUCE");
    REFUSE("K\x01}b.", TW_ERR_UNSUPPORTED, "BUILD");
    REFUSE("(ios\nsystem\n.", TW_ERR_UNSUPPORTED, "INST");
    REFUSE("(o.", TW_ERR_UNSUPPORTED, "OBJ");
    REFUSE("K\x01)\x81.", TW_ERR_UNSUPPORTED, "NEWOBJ");
    REFUSE("\x92.", TW_ERR_UNSUPPORTED, "NEWOBJ_EX");
    REFUSE("P1\n.", TW_ERR_UNSUPPORTED, "PERSID");
    REFUSE("K\x01Q.", TW_ERR_UNSUPPORTED, "BINPERSID");
    REFUSE("\x82\x01.", TW_ERR_UNSUPPORTED, "EXT1");
    REFUSE("\x8f.", TW_ERR_UNSUPPORTED, "EMPTY_SET");
    REFUSE("\x80\x06N.", TW_ERR_UNSUPPORTED, "protocol 6");
    REFUSE("\x01.", TW_ERR_FORMAT, "0x01");
    tw_pickle_free(parser);
}
END_TEST

START_TEST(refuses_damage) {
    new_parser();
    REFUSE("", TW_ERR_FORMAT, "empty");
    REFUSE("K", TW_ERR_FORMAT, "cut off");
    REFUSE("N", TW_ERR_FORMAT, "cut off");
    REFUSE(".", TW_ERR_FORMAT, "stack is empty");
    REFUSE("(.", TW_ERR_FORMAT, "stack is empty");
    REFUSE("t.", TW_ERR_FORMAT, "no mark");
    REFUSE("K\x01\x86.", TW_ERR_FORMAT, "stack is empty");
    REFUSE("K\x01(\x85.", TW_ERR_FORMAT, "stack is empty");
    REFUSE("X\xff\xff\xff\xff"
           "a.",
           TW_ERR_FORMAT, "cut off");
    REFUSE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
           "a.",
           TW_ERR_FORMAT, "cut off");
    REFUSE("\x8b\xff\xff\xff\xff"
           "a.",
           TW_ERR_FORMAT, "cut off");
    REFUSE("\x8c\x03\xed\xa0\x80.", TW_ERR_FORMAT, "surrogate");
    REFUSE("V\\ud83d\n.", TW_ERR_FORMAT, "surrogate");
    REFUSE("V\\u12\n.", TW_ERR_FORMAT, "escape");
    REFUSE("V\\U00110000\n.", TW_ERR_FORMAT, "escape");
    REFUSE("I99999999999999999999\n.", TW_ERR_FORMAT, "64 bits");
    REFUSE("\x8a\x09"
           "123456789.",
           TW_ERR_FORMAT, "64 bits");
    REFUSE("Ix\n.", TW_ERR_FORMAT, "integer");
    REFUSE("h\x00.", TW_ERR_FORMAT, "never set");
    REFUSE("Nr\xff\xff\xff\x7f.", TW_ERR_FORMAT, "memo index out of range");
    REFUSE("Na.", TW_ERR_FORMAT, "stack is empty");
    REFUSE("NNa.", TW_ERR_FORMAT, "append");
    REFUSE("}(Nu.", TW_ERR_FORMAT, "without value");
    REFUSE("S'a\n.", TW_ERR_FORMAT, "quotes");
    REFUSE("S'\\'\n.", TW_ERR_FORMAT, "escape");
    tw_pickle_free(parser);
}
END_TEST

/* What would make a reader loop, recurse or swell. */
START_TEST(refuses_bombs) {
    new_parser();
    REFUSE("]q\x00h\x00"
           "a.",
           TW_ERR_FORMAT, "contains itself");
    REFUSE("]q\x00h\x00\x85"
           "a.",
           TW_ERR_FORMAT, "contains itself");
    REFUSE("}q\x00Kx"
           "h\x00\x85s.",
           TW_ERR_FORMAT, "contains itself");
    char nested[300];
    memset(nested, '\x85', sizeof nested);
    nested[0] = 'N';
    nested[sizeof nested - 1] = '.';
    const tw_pickle_value *root;
    TW_ASSERT_FAILS(tw_pickle_read(parser, nested, sizeof nested, &root), TW_ERR_UNSUPPORTED, "deep");
    /* A billion laughs: t = (t, t), 30 times over. */
    char laughs[64] = "N";
    size_t n = 1;
    for (int i = 0; i < 30; i++) {
        laughs[n++] = '2';
        laughs[n++] = '\x86';
    }
    laughs[n++] = '.';
    TW_ASSERT_FAILS(tw_pickle_read(parser, laughs, n, &root), TW_ERR_UNSUPPORTED, "more than 1000 values");
    /* Two thousand Nones. */
    char many[2003];
    memset(many, 'N', sizeof many);
    many[0] = '(';
    many[2001] = 't';
    many[2002] = '.';
    TW_ASSERT_FAILS(tw_pickle_read(parser, many, sizeof many, &root), TW_ERR_UNSUPPORTED, "more than 1000");
    is_int(READ("K\x05."), 5); /* and the parser goes on */
    tw_pickle_free(parser);
}
END_TEST

/* Walks everything, as a consumer would; the parser promised that this is bounded. */
static size_t walk(const tw_pickle_value *v, int depth) {
    ck_assert_int_le(depth, TW_PICKLE_MAX_DEPTH);
    size_t n = 1;
    if (v->kind == TW_PICKLE_STR || v->kind == TW_PICKLE_BYTES)
        for (size_t i = 0; i < v->bytes.size; i++) n += v->bytes.data[i] == 'Q' ? 0 : 0;
    if (v->kind >= TW_PICKLE_TUPLE)
        for (size_t i = 0; i < v->items.size; i++) n += walk(v->items.data[i], depth + 1);
    return n;
}

START_TEST(survives_mutations) {
    static const char *const seeds[] = {
        "\x80\x04\x95\x1a~~~~~~~}\x94(\x8c\x01"
        "a\x94]\x94(K\x01K\x02K\x03"
        "e\x8c\x01"
        "b\x94Nh\x01\x86\x94u.",
        "(I1\nI2\nV\\u56fe\\u6587 abc\np0\ntp1\n.",
        "(lp0\nI1\naVx\np1\na(dp0\nVk\np1\nI2\nsa.",
        "]q~(K\x01\x8c\x03"
        "abcq\x01M~\x01G?\xf8~~~~~~h\x01(h\x01tq\x02h\x02"
        "e2\x86\x85.",
        "(S'it\\'s \\xe5'\nL5L\nF1.5\n}(U\x01"
        "aNu1NI01\nt.",
    };
    new_parser();
    uint32_t state = 7;
    int accepted = 0;
    for (int round = 0; round < 300000; round++) {
        const char *seed = seeds[round % 5];
        size_t size = strlen(seed);
        char *exact = malloc(size);
        memcpy(exact, seed, size);
        for (size_t i = 0; i < size; i++)
            if (exact[i] == '~') exact[i] = 0;
        for (int k = round / 5 % 4; k > 0; k--) {
            state = state * 1664525u + 1013904223u;
            size_t at = (state >> 8) % size;
            state = state * 1664525u + 1013904223u;
            exact[at] = state & 0x40000000 ? (char)(state >> 16) : seed[(state >> 8) % size];
        }
        const tw_pickle_value *root;
        if (tw_pickle_read(parser, exact, size, &root) == TW_OK) {
            accepted++;
            ck_assert_uint_eq(walk(root, 0), root->values);
        }
        free(exact);
    }
    ck_assert_int_gt(accepted, 1000);
    tw_pickle_free(parser);
}
END_TEST

TW_TEST_MAIN("pickle", reads_scalars, reads_containers, refuses_what_could_run, refuses_damage, refuses_bombs,
             survives_mutations)
