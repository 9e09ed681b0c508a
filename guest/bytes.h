/* A growing run of bytes. */
#ifndef METALMARK_BYTES_H
#define METALMARK_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data;
    size_t length;
    size_t capacity;
    bool failed; /* memory ran out; everything added since is lost */
};

void bytes_add(struct bytes *bytes, const void *data, size_t length);
void bytes_add_u32(struct bytes *bytes, uint32_t value);
void bytes_drop_front(struct bytes *bytes, size_t length);
void bytes_free(struct bytes *bytes);

#endif
