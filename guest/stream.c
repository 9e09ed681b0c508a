#include "stream.h"

#include <unistd.h>

static struct stream streams[STREAMS];

struct stream *stream_new(uint32_t number)
{
    if (stream_find(number))
        return NULL;
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = &streams[i];
        if (stream->used)
            continue;
        *stream = (struct stream){.number = number, .used = true, .control = -1, .cgroup = {.folder = -1}};
        stream->input.fd = -1;
        for (size_t out = 0; out < OUTPUTS; out++)
            stream->outputs[out].fd = -1;
        return stream;
    }
    return NULL;
}

struct stream *stream_find(uint32_t number)
{
    for (size_t i = 0; i < STREAMS; i++)
        if (streams[i].used && streams[i].number == number)
            return &streams[i];
    return NULL;
}

struct stream *stream_at(size_t index)
{
    return streams[index].used ? &streams[index] : NULL;
}

void stream_free(struct stream *stream)
{
    input_close(&stream->input);
    for (size_t i = 0; i < OUTPUTS; i++)
        output_close(&stream->outputs[i]);
    if (stream->control >= 0)
        close(stream->control);
    cgroup_remove(&stream->cgroup);
    bytes_free(&stream->closing);
    stream->used = false;
}
