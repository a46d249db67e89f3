/* What is said before events flow, and what a good subscriber answers while they do. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACK_EVENTS = 64, ACK_BYTES = 256 * 1024 };

void became_ready(struct connection *connection) {
    if (connection->phase == READY) return;
    connection->phase = READY;
    if (!connection->publisher) run.ready++;
}

void dialect_connected(struct connection *connection) {
    char request[512];
    switch (settings.dialect) {
    case RAW:
    case HTTP:
        became_ready(connection);
        return;
    case MQTT:
        connection->phase = GREETING;
        mqtt_connected(connection);
        return;
    default:
        connection->phase = UPGRADING;
        const char *path = settings.dialect >= NATS ? "/" : "/socket.io/?EIO=4&transport=websocket";
        send_now(connection, request, websocket_request(request, sizeof request, path));
    }
}

/* An HTTP answer: its status has to be 200; what it says was checked where it was written. */
static size_t http_take(struct connection *connection, char *data, size_t length, uint64_t now) {
    size_t taken = 0;
    char *end;
    while (taken < length && (end = memmem(data + taken, length - taken, "\r\n\r\n", 4))) {
        char *start = data + taken, *field = memmem(start, (size_t)(end - start), "ontent-", 7);
        while (field && strncasecmp(field + 7, "length:", 7) != 0)
            field = memmem(field + 7, (size_t)(end - field - 7), "ontent-", 7);
        if (!field) fail("an HTTP answer without its length: %.*s", 80, start);
        size_t whole = (size_t)(end + 4 - start) + strtoul(field + 14, NULL, 10);
        if (length - taken < whole) break;
        if (memcmp(start + 8, " 200", 4) != 0) fail("an event was refused: %.*s", (int)(whole < 900 ? whole : 900), start);
        answered(connection, now);
        taken += whole;
    }
    return taken;
}

size_t dialect_take(struct connection *connection, char *data, size_t length, uint64_t now) {
    if (settings.dialect == HTTP) return http_take(connection, data, length, now);
    if (settings.dialect == MQTT) return mqtt_take(connection, data, length, now);
    return websocket_take(connection, data, length, now);
}

static void say(struct connection *connection, const char *text) {
    websocket_send(connection, 1, text, strlen(text));
}

/* Copy what stands in quotes behind `key`; the key has to be there. */
static void quoted(const char *data, size_t length, const char *key, char *into, size_t room) {
    const char *found = memmem(data, length, key, strlen(key));
    if (!found) fail("no %s in %.*s", key, (int)(length < 300 ? length : 300), data);
    found += strlen(key);
    const char *end = memchr(found, '"', (size_t)(data + length - found));
    if (!end || (size_t)(end - found) >= room) fail("%s has no end", key);
    memcpy(into, found, (size_t)(end - found));
    into[end - found] = 0;
}

static void acknowledge(struct connection *connection) {
    char text[256];
    snprintf(text, sizeof text, "42[\"ack\",{\"stream\":\"%s\",\"lane\":\"normal\",\"epoch\":\"%s\",\"offset\":%lu}]",
             settings.stream, connection->epoch, connection->upto);
    connection->acked = connection->upto;
    connection->unacked_events = connection->unacked_bytes = 0;
    say(connection, text);
}

static void batch(struct connection *connection, char *data, size_t length, uint32_t events) {
    char *upto = memmem(data, length, "\"upto\":", 7);
    if (!upto) fail("a batch without upto");
    connection->upto = strtoull(upto + 7, NULL, 10);
    if (!connection->epoch[0]) quoted(data, length, "\"epoch\":\"", connection->epoch, sizeof connection->epoch);
    connection->unacked_events += events;
    connection->unacked_bytes += (uint32_t)length;
    if (connection->unacked_events >= ACK_EVENTS || connection->unacked_bytes >= ACK_BYTES) acknowledge(connection);
}

void dialect_tick(struct connection *connection) {
    if (settings.dialect == STEADCAST && connection->phase == READY && connection->upto > connection->acked)
        acknowledge(connection);
}

static void own_event(struct connection *connection, char *data, size_t length, uint32_t events) {
    if (memmem(data, length < 24 ? length : 24, "[\"batch\"", 8)) {
        batch(connection, data, length, events);
    } else if (memmem(data, length < 24 ? length : 24, "[\"ping\"", 7)) {
        char text[128];
        char *time = memmem(data, length, "\"time\":", 7);
        if (!time) fail("a ping without its time");
        snprintf(text, sizeof text, "42[\"pong\",{%.*s}]", (int)strcspn(time, ",}"), time);
        say(connection, text);
    } else if (memmem(data, length < 24 ? length : 24, "[\"error\"", 8)) {
        fail("the server says %.*s", (int)(length < 300 ? length : 300), data);
    }
}

static void event(struct connection *connection, char *data, size_t length, uint64_t now) {
    uint32_t events = count_marks(connection, data, length, now);
    if (settings.dialect == STEADCAST) own_event(connection, data, length, events);
    if (settings.dialect != RECOVERY || !events) return;
    char *start = memrchr(data, '"', length - 2); /* the opening quote in ["event",{…},"OFFSET"] */
    quoted(start, length - (size_t)(start - data), "\"", connection->resume[1], sizeof connection->resume[1]);
}

/* A Socket.IO connect was accepted; a session that was recovered is in its room again. */
static void accepted(struct connection *connection, char *data, size_t length) {
    bool recovered = connection->resume[0][0] && connection->resume[1][0];
    if (settings.dialect == RECOVERY && !connection->publisher)
        quoted(data, length, "\"pid\":\"", connection->resume[0], sizeof connection->resume[0]);
    if (connection->publisher || recovered) {
        became_ready(connection);
        return;
    }
    char text[512];
    if (settings.dialect == STEADCAST && connection->epoch[0])
        snprintf(text, sizeof text,
                 "420[\"subscribe\",{\"stream\":\"%s\",\"cursors\":{\"critical\":[\"%s\",0],\"normal\":[\"%s\",%lu]}}]",
                 settings.stream, connection->epoch, connection->epoch, connection->upto);
    else
        snprintf(text, sizeof text, "420[\"subscribe\",{\"stream\":\"%s\"}]", settings.stream);
    say(connection, text);
}

static void connect_socketio(struct connection *connection) {
    char text[256];
    if (!connection->resume[0][0] || !connection->resume[1][0]) {
        say(connection, "40");
        return;
    }
    snprintf(text, sizeof text, "40{\"pid\":\"%s\",\"offset\":\"%s\"}", connection->resume[0], connection->resume[1]);
    say(connection, text);
}

static void was_acknowledged(struct connection *connection, char *data, size_t length, uint64_t now) {
    if (!memmem(data, length, "\"ok\":true", 9)) {
        bool temporary = connection->phase == GREETING && memmem(data, length, "\"temporary\":true", 16);
        if (!temporary) fail("refused: %.*s", (int)(length < 300 ? length : 300), data);
        refused(connection, "a subscribe was refused for now");
    } else if (connection->publisher) {
        answered(connection, now);
    } else {
        became_ready(connection);
    }
}

static void socketio_payload(struct connection *connection, char *data, size_t length, uint64_t now) {
    char type = length > 1 && data[0] == '4' ? data[1] : 0;
    if (type == '2')
        event(connection, data, length, now);
    else if (type == '3')
        was_acknowledged(connection, data, length, now);
    else if (type == '0')
        accepted(connection, data, length);
    else if (type == '4')
        refused(connection, "the connect was refused");
    else if (data[0] == '0')
        connect_socketio(connection);
    else if (data[0] == '2')
        say(connection, "3");
}

void dialect_payload(struct connection *connection, char *data, size_t length, uint64_t now) {
    if (settings.dialect == RAW)
        count_marks(connection, data, length, now);
    else if (settings.dialect == NATS || settings.dialect == JETSTREAM)
        nats_payload(connection, data, length, now);
    else if (length)
        socketio_payload(connection, data, length, now);
}
