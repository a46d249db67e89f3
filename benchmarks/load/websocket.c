/* RFC 6455 as far as a load needs it: client frames with a mask of zero, so that bytes go as they are. */
#include "load.h"

#include <stdio.h>
#include <string.h>

size_t websocket_request(char *into, size_t room, const char *path) {
    int length = snprintf(into, room,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          path, settings.port);
    return (size_t)length;
}

void websocket_send(struct connection *connection, int opcode, const char *data, size_t length) {
    char frame[4096];
    size_t at = 0;
    if (length > sizeof frame - 8) fail("a control message of %zu bytes", length);
    frame[at++] = (char)(0x80 | opcode);
    if (length < 126) {
        frame[at++] = (char)(0x80 | length);
    } else {
        frame[at++] = (char)(0x80 | 126);
        frame[at++] = (char)(length >> 8);
        frame[at++] = (char)length;
    }
    memset(frame + at, 0, 4);
    memcpy(frame + at + 4, data, length);
    send_now(connection, frame, at + 4 + length);
}

static size_t upgraded(struct connection *connection, char *data, size_t length) {
    char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (length < 12 || memcmp(data + 8, " 101", 4) != 0) {
        char line[64] = {0};
        memcpy(line, data, length < 40 ? length : 40);
        refused(connection, line);
        return length;
    }
    connection->phase = GREETING;
    return (size_t)(end + 4 - data);
}

/* Give the length of a frame's header and set its payload's; 0: more bytes are needed. */
static size_t header(const unsigned char *data, size_t length, uint64_t *payload) {
    if (length < 2) return 0;
    *payload = data[1] & 127;
    if (*payload < 126) return 2;
    size_t size = *payload == 126 ? 2 : 8;
    if (length < 2 + size) return 0;
    *payload = 0;
    for (size_t i = 0; i < size; i++) *payload = *payload << 8 | data[2 + i];
    return 2 + size;
}

static void frame(struct connection *connection, int opcode, char *data, size_t length, uint64_t now) {
    if (opcode == 9)
        websocket_send(connection, 10, data, length);
    else if (opcode == 8)
        refused(connection, "the server closed the websocket");
    else
        dialect_payload(connection, data, length, now);
}

size_t websocket_take(struct connection *connection, char *data, size_t length, uint64_t now) {
    size_t taken = 0;
    if (connection->phase == UPGRADING) taken = upgraded(connection, data, length);
    while (connection->phase >= GREETING && taken < length) {
        uint64_t payload;
        size_t before = header((unsigned char *)data + taken, length - taken, &payload);
        if (!before || length - taken - before < payload) break;
        frame(connection, data[taken] & 15, data + taken + before, payload, now);
        taken += before + payload;
    }
    return connection->phase == CLOSED ? length : taken;
}
