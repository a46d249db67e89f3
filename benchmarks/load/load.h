/* The load: many subscribers and a few publishers in one process, which counts, times and checks order.
 *
 * An event carries a mark, `~` with 19 digits of CLOCK_MONOTONIC nanoseconds, `-`, and 9 digits of a sequence
 * number. Whatever frames a server puts around its events, the mark is found by one memchr; so the same
 * counting serves every dialect, and no receiver parses JSON while it is timed. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MARK = '~', TIME_DIGITS = 19, SEQ_DIGITS = 9, MARK_LENGTH = 1 + TIME_DIGITS + 1 + SEQ_DIGITS };
enum { MAX_CLIENTS = 16384, MAX_PUBLISHERS = 256, WINDOW = 256, RECEIVE = 1 << 20 };

enum dialect { SOCKETIO, STEADCAST, RECOVERY, NATS, JETSTREAM, MQTT, RAW, HTTP };
enum phase { CLOSED, CONNECTING, UPGRADING, GREETING, READY, FROZEN };

struct bytes {
    char *data;
    size_t length, room;
};

struct connection {
    int fd, index;
    enum phase phase;
    bool publisher;
    struct bytes carry;   /* the part of a frame that has come so far */
    struct bytes stream;  /* dialects whose messages straddle frames: the part of a message */
    struct bytes out;     /* a publisher's unsent rest */
    size_t sent;
    uint64_t next;        /* the sequence number that is due */
    uint64_t received;    /* events of this run */
    uint64_t done_at;     /* when `received` met the goal, ns */
    uint64_t retry_at;    /* when a refused connect is tried again, ns; 0: not refused */
    uint64_t upto, acked; /* Steadcast: the offset to acknowledge, and the last acknowledged */
    uint32_t unacked_events, unacked_bytes;
    uint64_t asked_at[WINDOW]; /* publishers: when the flushes went that are unanswered */
    uint32_t asked, answers; /* flushes sent, single answers received */
    char resume[2][64];   /* recovery: the session's key, and the last event's offset */
    char epoch[80];
};

struct settings {
    enum dialect dialect;
    int port;
    const char *stream;
};

struct run {
    uint64_t events, answers, disorder; /* what came; events that weren't the one that was due */
    uint64_t first_at, last_at;
    uint64_t latency[64 * 32], answering[64 * 32];
    uint64_t goal;      /* events of one client after which it is done; 0: none */
    int done, ready;
    uint64_t retries;   /* connects that were refused for now */
};

extern struct settings settings;
extern struct run run;
extern struct connection clients[MAX_CLIENTS], publishers[MAX_PUBLISHERS];
extern int client_count, publisher_count;
extern uint64_t sequence; /* the next event's */
extern int generation;    /* how often the subscribers were cut */

_Noreturn void fail(const char *format, ...);
uint64_t now_ns(void);
void keep(struct bytes *kept, const char *data, size_t length);

/* network.c */
void network_begin(void);
void open_connection(struct connection *connection, int receive_buffer);
void close_connection(struct connection *connection);
void freeze_connection(struct connection *connection);
void refused(struct connection *connection, const char *why);
void send_now(struct connection *connection, const char *data, size_t length);
void send_queued(struct connection *connection, const char *data, size_t length);
void turn(int timeout_ms);

/* websocket.c */
size_t websocket_request(char *into, size_t room, const char *path);
size_t websocket_take(struct connection *connection, char *data, size_t length, uint64_t now);
void websocket_send(struct connection *connection, int opcode, const char *data, size_t length);

/* dialects.c, nats.c, mqtt.c */
void dialect_connected(struct connection *connection);
size_t dialect_take(struct connection *connection, char *data, size_t length, uint64_t now);
void dialect_payload(struct connection *connection, char *data, size_t length, uint64_t now);
void dialect_tick(struct connection *connection);
void became_ready(struct connection *connection);
void answered(struct connection *publisher, uint64_t now);
void nats_payload(struct connection *connection, char *data, size_t length, uint64_t now);
void mqtt_connected(struct connection *connection);
size_t mqtt_take(struct connection *connection, char *data, size_t length, uint64_t now);

/* counting.c */
uint32_t count_marks(struct connection *connection, const char *data, size_t length, uint64_t now);
void note(uint64_t *histogram, uint64_t ns);
double percentile(const uint64_t *histogram, double share);
void run_reset(uint64_t goal);

/* runs.c */
void command(char *line);
void idle(void);

#endif
