/* Fields of a payload: tag u8 | length u32 | value, little-endian. */
#ifndef METALMARK_FIELDS_H
#define METALMARK_FIELDS_H

#include "bytes.h"

struct field {
    uint8_t tag;
    uint32_t length;
    const uint8_t *value;
};

struct field_reader {
    const uint8_t *at;
    size_t left;
};

/* 1: a field was read; 0: the end; -1: the payload is cut off within a field. */
int field_next(struct field_reader *reader, struct field *field);

/* Both return -1 when the value is not an integer of eight bytes, or not text without a NUL. */
int field_integer(const struct field *field, uint64_t *value);
int field_text(const struct field *field, char **text); /* allocated; frees what *text held before */

void field_add_integer(struct bytes *bytes, uint8_t tag, uint64_t value);
void field_add(struct bytes *bytes, uint8_t tag, const void *value, size_t length);
void field_add_text(struct bytes *bytes, uint8_t tag, const char *text);

#endif
