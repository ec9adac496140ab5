#include "data/pickle_machine.h"

#include <string.h>

static tw_status refused(const tw_pickle *p, unsigned char op) {
    static const struct {
        char op;
        const char *name;
    } known[] = {
        {'c', "GLOBAL"},         {'\x93', "STACK_GLOBAL"},
        {'R', "REDUCE"},         {'b', "BUILD"},
        {'i', "INST"},           {'o', "OBJ"},
        {'\x81', "NEWOBJ"},      {'\x92', "NEWOBJ_EX"},
        {'P', "PERSID"},         {'Q', "BINPERSID"},
        {'\x82', "EXT1"},        {'\x83', "EXT2"},
        {'\x84', "EXT4"},        {'\x8f', "EMPTY_SET"},
        {'\x90', "ADDITEMS"},    {'\x91', "FROZENSET"},
        {'\x97', "NEXT_BUFFER"}, {'\x98', "READONLY_BUFFER"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if ((unsigned char)known[i].op == op)
            return FAIL(TW_ERR_UNSUPPORTED, "pickle: instruction %s at byte %zu is refused: only %s read",
                        known[i].name, p->op_at,
                        p->global_count ? "data and a few known names are" : "plain data is");
    return FAIL(TW_ERR_FORMAT, "pickle: unknown instruction 0x%02x at byte %zu", op, p->op_at);
}

/* Characters that could disturb a terminal are shown as '?'. */
static void printable(char *out, size_t capacity, const char *s, size_t size) {
    size_t n = size < capacity - 1 ? size : capacity - 1;
    for (size_t i = 0; i < n; i++) out[i] = s[i] > ' ' && s[i] < 0x7f ? s[i] : '?';
    out[n] = '\0';
}

static tw_status refused_name(const tw_pickle *p, const char *module, size_t module_size, const char *name,
                              size_t name_size) {
    char m[96], n[96];
    printable(m, sizeof m, module, module_size);
    printable(n, sizeof n, name, name_size);
    return FAIL(TW_ERR_UNSUPPORTED,
                "pickle: the name '%s.%s' at byte %zu is refused: only data is read, nothing is ever run", m,
                n, p->op_at);
}

static tw_status push_name(tw_pickle *p, uint8_t tag, const char *name, size_t size) {
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_GLOBAL, &v));
    v->tag = tag;
    v->bytes.data = name;
    v->bytes.size = size;
    return tw_pickle_push(p, v);
}

static bool is_class_module(const tw_pickle *p, const char *module, size_t size) {
    size_t n = p->class_module ? strlen(p->class_module) : 0;
    return n > 0 && size >= n && memcmp(module, p->class_module, n) == 0 && (size == n || module[n] == '.');
}

static tw_status push_global(tw_pickle *p, const char *module, size_t module_size, const char *name,
                             size_t name_size) {
    if (is_class_module(p, module, module_size)) return push_name(p, p->class_tag, name, name_size);
    for (size_t i = 0; i < p->global_count; i++) {
        const tw_pickle_global *g = &p->globals[i];
        if (strlen(g->module) != module_size || memcmp(g->module, module, module_size) != 0) continue;
        if (strlen(g->name) != name_size || memcmp(g->name, name, name_size) != 0) continue;
        return push_name(p, g->tag, g->name, name_size);
    }
    return refused_name(p, module, module_size, name, name_size);
}

/* GLOBAL: module and name on a line each. */
static tw_status global(tw_pickle *p) {
    const char *module = NULL, *name = NULL;
    size_t module_size = 0, name_size = 0;
    TRY(tw_pickle_take_line(p, &module, &module_size));
    TRY(tw_pickle_take_line(p, &name, &name_size));
    return push_global(p, module, module_size, name, name_size);
}

static tw_status stack_global(tw_pickle *p) {
    TRY(tw_pickle_need(p, 2));
    const tw_pickle_value *module = p->stack[p->height - 2], *name = p->stack[p->height - 1];
    if (module->kind != TW_PICKLE_STR || name->kind != TW_PICKLE_STR)
        return tw_pickle_damaged(p, "STACK_GLOBAL of what is no str");
    p->height -= 2;
    return push_global(p, module->bytes.data, module->bytes.size, name->bytes.data, name->bytes.size);
}

/* INST names what it would make, as GLOBAL does; no file of ours needs it. */
static tw_status inst(tw_pickle *p) {
    const char *module = NULL, *name = NULL;
    size_t module_size = 0, name_size = 0;
    TRY(tw_pickle_take_line(p, &module, &module_size));
    TRY(tw_pickle_take_line(p, &name, &name_size));
    return refused_name(p, module, module_size, name, name_size);
}

static const tw_pickle_global *global_of(const tw_pickle *p, const tw_pickle_value *v) {
    for (size_t i = 0; i < p->global_count; i++)
        if (p->globals[i].tag == v->tag) return &p->globals[i];
    return NULL;
}

/* OrderedDict() or, as Python 2 wrote it, OrderedDict([[key, value], ...]). */
static tw_status make_dict(tw_pickle *p, const tw_pickle_value *args, uint8_t tag) {
    tw_pickle_value *dict = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_DICT, &dict));
    dict->tag = tag;
    TRY(tw_pickle_push(p, dict));
    if (args->items.size == 0) return TW_OK;
    const tw_pickle_value *list = args->items.data[0];
    if (args->items.size != 1 || list->kind != TW_PICKLE_LIST)
        return tw_pickle_damaged(p, "a dict is made from what is no list of pairs");
    size_t from = p->height;
    for (size_t i = 0; i < list->items.size; i++) {
        const tw_pickle_value *pair = list->items.data[i];
        if ((pair->kind != TW_PICKLE_LIST && pair->kind != TW_PICKLE_TUPLE) || pair->items.size != 2)
            return tw_pickle_damaged(p, "a dict is made from what is no list of pairs");
        TRY(tw_pickle_push(p, pair->items.data[0]));
        TRY(tw_pickle_push(p, pair->items.data[1]));
    }
    return tw_pickle_fill(p, dict, from);
}

/* REDUCE: the call is recorded, never made. */
static tw_status reduce(tw_pickle *p) {
    TRY(tw_pickle_need(p, 2));
    tw_pickle_value *callable = p->stack[p->height - 2], *args = p->stack[p->height - 1];
    const tw_pickle_global *g = callable->kind == TW_PICKLE_GLOBAL ? global_of(p, callable) : NULL;
    if (callable->kind == TW_PICKLE_GLOBAL && !g)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: a call of a class of %s at byte %zu is refused",
                    p->class_module, p->op_at);
    if (!g) return tw_pickle_damaged(p, "REDUCE calls what is no name");
    if (g->use == TW_PICKLE_CONSTANT)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: a call of '%s.%s' at byte %zu is refused", g->module,
                    g->name, p->op_at);
    if (args->kind != TW_PICKLE_TUPLE) return tw_pickle_damaged(p, "REDUCE without a tuple of arguments");
    if (g->use == TW_PICKLE_MAKES_DICT) {
        p->height -= 2;
        return make_dict(p, args, g->tag);
    }
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_OBJECT, &v));
    v->tag = g->tag;
    TRY(tw_pickle_fill(p, v, p->height - 2));
    return tw_pickle_push(p, v);
}

/* NEWOBJ: an object of an allowed class, without attributes yet. */
static tw_status new_object(tw_pickle *p) {
    if (!p->class_module) return refused(p, 0x81);
    TRY(tw_pickle_need(p, 2));
    const tw_pickle_value *class = p->stack[p->height - 2], *args = p->stack[p->height - 1];
    if (class->kind != TW_PICKLE_GLOBAL || class->tag != p->class_tag)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: NEWOBJ of what is no class of %s at byte %zu is refused",
                    p->class_module, p->op_at);
    if (args->kind != TW_PICKLE_TUPLE || args->items.size != 0)
        return tw_pickle_damaged(p, "NEWOBJ with arguments");
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_OBJECT, &v));
    v->tag = p->class_tag;
    TRY(tw_pickle_fill(p, v, p->height - 2));
    return tw_pickle_push(p, v);
}

static tw_status set_attributes(tw_pickle *p, tw_pickle_value *object) {
    if (p->stack[p->height - 1]->kind != TW_PICKLE_DICT)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: BUILD with a %s, a dict of attributes is read, at byte %zu",
                    tw_pickle_kind_name(p->stack[p->height - 1]->kind), p->op_at);
    if (object->items.size > 2) return tw_pickle_damaged(p, "a second state");
    return tw_pickle_fill(p, object, p->height - 1);
}

/* BUILD: gives an object a state. */
static tw_status set_state(tw_pickle *p) {
    TRY(tw_pickle_need(p, 2));
    tw_pickle_value *v = p->stack[p->height - 2];
    if (v->kind == TW_PICKLE_OBJECT && p->class_module && v->tag == p->class_tag) return set_attributes(p, v);
    bool made = v->kind == TW_PICKLE_OBJECT || (v->kind == TW_PICKLE_DICT && v->tag);
    const tw_pickle_global *g = made ? global_of(p, v) : NULL;
    if (!g || !g->takes_state)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: BUILD of a %s%s%s at byte %zu is refused",
                    tw_pickle_kind_name(v->kind), g ? " of " : "", g ? g->name : "", p->op_at);
    if (v->kind == TW_PICKLE_OBJECT) {
        if (v->items.size > 2) return tw_pickle_damaged(p, "a second state");
        return tw_pickle_fill(p, v, p->height - 1);
    }
    p->height--;
    return TW_OK;
}

static tw_status persistent(tw_pickle *p) {
    TRY(tw_pickle_need(p, 1));
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_PERSISTENT, &v));
    TRY(tw_pickle_fill(p, v, p->height - 1));
    return tw_pickle_push(p, v);
}

tw_status tw_pickle_object(tw_pickle *p, unsigned char op) {
    if (p->global_count == 0) return refused(p, op);
    switch (op) {
    case 'c':
        return global(p);
    case 0x93:
        return stack_global(p);
    case 'i':
        return inst(p);
    case 'R':
        return reduce(p);
    case 'b':
        return set_state(p);
    case 0x81:
        return new_object(p);
    case 'Q':
        return persistent(p);
    default:
        return refused(p, op);
    }
}
