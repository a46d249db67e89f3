/* MQTT 3.1.1 over TCP, quality of service 0: what Mosquitto is compared by. */
#include "load.h"

#include <stdio.h>
#include <string.h>

void mqtt_connected(struct connection *connection) {
    char packet[64];
    int length = snprintf(packet + 14, sizeof packet - 14, "%c%d", connection->publisher ? 'p' : 'c', connection->index);
    memcpy(packet, "\x10\0\0\4MQTT\4\2\0\0\0\0", 14);
    packet[1] = (char)(12 + length);
    packet[13] = (char)length;
    send_now(connection, packet, (size_t)(14 + length));
}

static void subscribe(struct connection *connection) {
    char packet[160];
    size_t topic = strlen(settings.stream);
    memcpy(packet, "\x82\0\0\1\0", 5);
    packet[1] = (char)(5 + topic);
    packet[5] = (char)topic;
    memcpy(packet + 6, settings.stream, topic);
    packet[6 + topic] = 0;
    send_now(connection, packet, 7 + topic);
}

/* Give the length of the fixed header and set the rest's; 0: more bytes are needed. */
static size_t header(const unsigned char *data, size_t length, size_t *rest) {
    *rest = 0;
    for (size_t i = 1, shift = 0; i < length && i < 5; i++, shift += 7) {
        *rest |= (size_t)(data[i] & 127) << shift;
        if (data[i] < 128) return i + 1;
    }
    return 0;
}

static void packet(struct connection *connection, int type, const char *data, size_t length, uint64_t now) {
    if (type == 2 && data[1] != 0) fail("the broker refused a connect: %d", data[1]);
    if (type == 2 && !connection->publisher)
        subscribe(connection);
    else if (type == 2 || type == 9)
        became_ready(connection);
    else if (type == 3)
        count_marks(connection, data, length, now);
}

size_t mqtt_take(struct connection *connection, char *data, size_t length, uint64_t now) {
    size_t taken = 0, rest, before;
    while (taken < length && (before = header((unsigned char *)data + taken, length - taken, &rest)) &&
           length - taken >= before + rest) {
        packet(connection, (unsigned char)data[taken] >> 4, data + taken + before, rest, now);
        taken += before + rest;
    }
    return taken;
}
