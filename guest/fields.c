#include "fields.h"

#include <stdlib.h>
#include <string.h>

enum { FIELD_HEADER_BYTES = 5 };

int field_next(struct field_reader *reader, struct field *field)
{
    if (reader->left == 0)
        return 0;
    if (reader->left < FIELD_HEADER_BYTES)
        return -1;
    const uint8_t *at = reader->at;
    uint32_t length = (uint32_t)at[1] | (uint32_t)at[2] << 8 | (uint32_t)at[3] << 16 | (uint32_t)at[4] << 24;
    if (length > reader->left - FIELD_HEADER_BYTES)
        return -1;
    *field = (struct field){.tag = at[0], .length = length, .value = at + FIELD_HEADER_BYTES};
    reader->at += FIELD_HEADER_BYTES + length;
    reader->left -= FIELD_HEADER_BYTES + length;
    return 1;
}

int field_integer(const struct field *field, uint64_t *value)
{
    if (field->length != 8)
        return -1;
    *value = 0;
    for (int i = 7; i >= 0; i--)
        *value = *value << 8 | field->value[i];
    return 0;
}

int field_text(const struct field *field, char **text)
{
    if (field->length && memchr(field->value, 0, field->length))
        return -1;
    char *copy = malloc((size_t)field->length + 1);
    if (!copy)
        return -1;
    if (field->length)
        memcpy(copy, field->value, field->length);
    copy[field->length] = 0;
    free(*text);
    *text = copy;
    return 0;
}

void field_add(struct bytes *bytes, uint8_t tag, const void *value, size_t length)
{
    bytes_add(bytes, &tag, 1);
    bytes_add_u32(bytes, (uint32_t)length);
    bytes_add(bytes, value, length);
}

void field_add_integer(struct bytes *bytes, uint8_t tag, uint64_t value)
{
    uint8_t raw[8];
    for (int i = 0; i < 8; i++)
        raw[i] = (uint8_t)(value >> (8 * i));
    field_add(bytes, tag, raw, sizeof raw);
}

void field_add_text(struct bytes *bytes, uint8_t tag, const char *text)
{
    field_add(bytes, tag, text, strlen(text));
}
