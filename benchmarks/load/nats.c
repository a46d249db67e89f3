/* The NATS client protocol over websocket; its messages are a stream that frames may cut anywhere.
 * With JetStream each subscriber has a push consumer of its own that starts where it says: the same
 * thing that a Steadcast cursor is. It answers flow control, as every JetStream client does. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(struct connection *connection, const char *text, size_t length) {
    websocket_send(connection, 2, text, length);
}

static void greet(struct connection *connection) {
    char text[256];
    const char *subject = connection->publisher ? "a" : settings.dialect == NATS ? settings.stream : "d";
    int length = snprintf(text, sizeof text,
                          "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\","
                          "\"protocol\":1,\"headers\":true,\"no_responders\":false}\r\nSUB %s", subject);
    if (connection->publisher)
        length += snprintf(text + length, sizeof text - (size_t)length, ".%04d", connection->index);
    else if (settings.dialect == JETSTREAM)
        length += snprintf(text + length, sizeof text - (size_t)length, ".%d.%d 1\r\nSUB r.%d.%d", generation,
                           connection->index, generation, connection->index);
    length += snprintf(text + length, sizeof text - (size_t)length, " %d\r\nPING\r\n",
                       settings.dialect == JETSTREAM && !connection->publisher ? 2 : 1);
    say(connection, text, (size_t)length);
}

static void consume(struct connection *connection) {
    char body[512], start[64] = "\"deliver_policy\":\"new\"", text[1024];
    if (generation)
        snprintf(start, sizeof start, "\"deliver_policy\":\"by_start_sequence\",\"opt_start_seq\":%lu",
                 connection->next + 1); /* JetStream counts from 1 */
    int length = snprintf(body, sizeof body,
                          "{\"stream_name\":\"%s\",\"config\":{%s,\"deliver_subject\":\"d.%d.%d\",\"ack_policy\":\"none\","
                          "\"replay_policy\":\"instant\",\"flow_control\":true,\"idle_heartbeat\":5000000000,"
                          "\"mem_storage\":true,\"num_replicas\":1}}",
                          settings.stream, start, generation, connection->index);
    length = snprintf(text, sizeof text, "PUB $JS.API.CONSUMER.CREATE.%s r.%d.%d %d\r\n%s\r\n", settings.stream,
                      generation, connection->index, length, body);
    say(connection, text, (size_t)length);
}

static void pong(struct connection *connection, uint64_t now) {
    if (connection->phase == READY)
        answered(connection, now);
    else if (settings.dialect == JETSTREAM && !connection->publisher)
        consume(connection);
    else
        became_ready(connection);
}

/* Answer a status message: flow control names where to in its reply or, in a heartbeat, in a header. */
static void status(struct connection *connection, const char *reply, const char *headers, size_t length) {
    char text[256];
    const char *stalled = memmem(headers, length, "Consumer-Stalled: ", 18);
    if (!reply[0] && !stalled) return;
    const char *subject = reply[0] ? reply : stalled + 18;
    int size = snprintf(text, sizeof text, "PUB %.*s 0\r\n\r\n", (int)strcspn(subject, "\r\n "), subject);
    say(connection, text, (size_t)size);
}

static void message(struct connection *connection, int sid, const char *data, size_t length, uint64_t now) {
    if (!connection->publisher && sid == 1) {
        count_marks(connection, data, length, now);
        return;
    }
    if (memmem(data, length, "\"error\"", 7)) fail("JetStream: %.*s", (int)length, data);
    if (connection->publisher)
        answered(connection, now);
    else
        became_ready(connection);
}

/* Take a MSG or HMSG with its payload; gives its length, 0 where it isn't complete. */
static size_t delivered(struct connection *connection, const char *data, const char *end, size_t length, uint64_t now) {
    char line[512], subject[200], words[3][200];
    size_t size = (size_t)(end - data), whole;
    if (size >= sizeof line) fail("a message line of %zu bytes", size);
    memcpy(line, data, size);
    line[size] = 0;
    bool headers = line[0] == 'H';
    int sid, count = sscanf(line, "%*s %199s %d %199s %199s %199s", subject, &sid, words[0], words[1], words[2]);
    count -= 2;
    if (count < 1 + headers) fail("not understood: %s", line);
    size_t total = strtoul(words[count - 1], NULL, 10);
    whole = size + 2 + total + 2;
    if (length < whole) return 0;
    const char *payload = end + 2, *reply = count == 2 + headers ? words[0] : "";
    if (headers)
        status(connection, reply, payload, total);
    else
        message(connection, sid, payload, total, now);
    return whole;
}

static size_t one(struct connection *connection, char *data, size_t length, uint64_t now) {
    char *end = memmem(data, length, "\r\n", 2);
    if (!end) return 0;
    if (data[0] == 'M' || data[0] == 'H') return delivered(connection, data, end, length, now);
    if (!memcmp(data, "INFO", 4) && connection->phase == GREETING && !connection->asked) {
        connection->asked = 1; /* later ones are news of the cluster */
        greet(connection);
    } else if (!memcmp(data, "PING", 4)) {
        say(connection, "PONG\r\n", 6);
    } else if (!memcmp(data, "PONG", 4)) {
        pong(connection, now);
    } else if (!memcmp(data, "-ERR", 4)) {
        fail("%.*s", (int)(end - data), data);
    }
    return (size_t)(end + 2 - data);
}

void nats_payload(struct connection *connection, char *data, size_t length, uint64_t now) {
    struct bytes *kept = &connection->stream;
    bool straddles = kept->length > 0;
    if (straddles) {
        keep(kept, data, length);
        data = kept->data, length = kept->length;
    }
    size_t taken = 0, step;
    while (taken < length && (step = one(connection, data + taken, length - taken, now))) taken += step;
    if (straddles) {
        memmove(kept->data, kept->data + taken, length - taken);
        kept->length = length - taken;
    } else if (taken < length) {
        keep(kept, data + taken, length - taken);
    }
}
