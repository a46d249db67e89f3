/* The commands, and the runs that they start: each one line in, one line of JSON out. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECOND = 1000000000, PATIENCE = 60, SLICES = 20 };
static const char SEQ[] = "@SEQ@@@@@", TIME[] = "@TIME@@@@@@@@@@@@@@", PUBLISHER[] = "@PUB";

static struct {
    char *data;
    size_t length;
    uint32_t *sequences, *times, *publisher; /* where they stand */
    uint32_t sequence_count, events, publisher_count;
    uint32_t answers; /* how many the server gives to one flush */
} flush;
static uint64_t flushes; /* of this run */
static uint64_t started_at;

/* Keep up what connections need while they live: an ack a second, each client at its own time, and retries. */
static void pump(int timeout_ms) {
    static uint64_t due;
    static int slice;
    turn(timeout_ms);
    uint64_t now = now_ns();
    if (now < due) return;
    due = now + SECOND / SLICES;
    slice = (slice + 1) % SLICES;
    for (int i = 0; i < client_count; i++) {
        if (i % SLICES == slice) dialect_tick(&clients[i]);
        if (clients[i].retry_at && now >= clients[i].retry_at) open_connection(&clients[i], 0);
    }
    for (int i = 0; i < publisher_count; i++)
        if (publishers[i].retry_at && now >= publishers[i].retry_at) open_connection(&publishers[i], 0);
}

static void impatient(uint64_t since, const char *what) {
    if (now_ns() > since + (uint64_t)PATIENCE * SECOND)
        fail("gave up on %s: %lu events of %d clients, %lu answers after %lu flushes", what, run.events, run.ready,
             run.answers, flushes);
}

/* Templates */

static void *room(size_t length) {
    void *memory = malloc(length);
    if (!memory) fail("no memory for %zu bytes", length);
    return memory;
}

static uint32_t find(const char *placeholder, uint32_t **places) {
    uint32_t count = 0;
    size_t size = strlen(placeholder);
    char *at = flush.data, *end = flush.data + flush.length;
    free(*places);
    *places = room((flush.length / size + 1) * sizeof **places);
    while ((at = memmem(at, (size_t)(end - at), placeholder, size))) {
        (*places)[count++] = (uint32_t)(at - flush.data);
        at += size;
    }
    return count;
}

static void load_template(const char *path, int answers) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("no %s", path);
    fseek(file, 0, SEEK_END);
    flush.length = (size_t)ftell(file);
    rewind(file);
    free(flush.data);
    flush.data = room(flush.length);
    if (fread(flush.data, 1, flush.length, file) != flush.length) fail("can't read %s", path);
    fclose(file);
    flush.answers = (uint32_t)answers;
    flush.sequence_count = find(SEQ, &flush.sequences);
    flush.events = find(TIME, &flush.times);
    flush.publisher_count = find(PUBLISHER, &flush.publisher);
    if (!flush.events || flush.sequence_count % flush.events) fail("%s has no events", path);
    printf("{\"events\": %u}\n", flush.events);
}

static void write_digits(char *into, uint64_t value, int count) {
    while (count--) into[count] = (char)('0' + value % 10), value /= 10;
}

static void send_flush(struct connection *publisher, uint64_t at) {
    uint32_t each = flush.sequence_count / flush.events;
    for (uint32_t i = 0; i < flush.sequence_count; i++)
        write_digits(flush.data + flush.sequences[i], sequence + i / each, SEQ_DIGITS);
    for (uint32_t i = 0; i < flush.events; i++) write_digits(flush.data + flush.times[i], at, TIME_DIGITS);
    for (uint32_t i = 0; i < flush.publisher_count; i++)
        write_digits(flush.data + flush.publisher[i], (uint64_t)publisher->index, 4);
    sequence += flush.events;
    flushes++;
    publisher->asked_at[publisher->asked++ % WINDOW] = at;
    send_queued(publisher, flush.data, flush.length);
}

void answered(struct connection *publisher, uint64_t now) {
    run.answers++;
    publisher->answers++;
    if (!flush.answers || publisher->answers % flush.answers) return;
    note(run.answering, now - publisher->asked_at[(publisher->answers / flush.answers - 1) % WINDOW]);
}

/* Runs */

static void begin(uint64_t goal) {
    run_reset(goal);
    flushes = 0;
    for (int i = 0; i < publisher_count; i++) publishers[i].asked = publishers[i].answers = 0;
    started_at = now_ns();
}

static bool arrived(uint64_t count) {
    return run.events >= count * flush.events * (uint64_t)run.ready && run.answers >= count * flush.answers;
}

static void finish(uint64_t sent_until) {
    while (!arrived(flushes)) {
        pump(20);
        impatient(sent_until, "deliveries");
    }
}

static void report(void) {
    uint64_t end = run.last_at ? run.last_at : now_ns(), least = UINT64_MAX, most = 0;
    for (int i = 0; i < client_count; i++) {
        if (clients[i].phase != READY) continue;
        if (clients[i].received < least) least = clients[i].received;
        if (clients[i].received > most) most = clients[i].received;
    }
    printf("{\"clients\": %d, \"flushes\": %lu, \"expected\": %lu, \"events\": %lu, \"least\": %lu, \"most\": %lu, "
           "\"disorder\": %lu, \"answers\": %lu, \"seconds\": %.6f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, "
           "\"answer_p50_ms\": %.4f, \"answer_p99_ms\": %.4f, \"retries\": %lu}\n",
           run.ready, flushes, flushes * flush.events, run.events, run.ready ? least : 0, most, run.disorder,
           run.answers, (double)(end - started_at) / SECOND, percentile(run.latency, 0.5) / 1e6,
           percentile(run.latency, 0.99) / 1e6, percentile(run.answering, 0.5) / 1e6,
           percentile(run.answering, 0.99) / 1e6, run.retries);
}

/* Send a flush whenever at most `window` - 1 are still on their way. */
static void flood(double seconds, uint64_t window) {
    begin(0);
    uint64_t end = started_at + (uint64_t)(seconds * SECOND), now;
    while ((now = now_ns()) < end) {
        if (flushes < window || arrived(flushes - window + 1))
            send_flush(&publishers[0], now);
        else
            pump(20);
        impatient(end, "deliveries");
    }
    finish(end);
    report();
}

/* Send at a rate, but never run more than `ahead` flushes ahead; an event's time is when it was due. */
static void pace(double rate, double seconds, uint64_t ahead) {
    begin(0);
    uint64_t end = started_at + (uint64_t)(seconds * SECOND), now, due = started_at;
    while ((now = now_ns()) < end) {
        due = started_at + (uint64_t)((double)flushes / rate * SECOND);
        if (now >= due && (flushes < ahead || arrived(flushes - ahead + 1)))
            send_flush(&publishers[0], due);
        else
            pump(now < due ? (int)((due - now) / 1000000) : 1);
        impatient(end, "deliveries");
    }
    finish(end);
    report();
}

/* Publish from the first `count` publishers, each with up to `depth` unanswered flushes. */
static void publish(double seconds, uint32_t depth, int count) {
    if (count > publisher_count || depth > WINDOW) fail("at most %d publishers and %d flushes", publisher_count, WINDOW);
    begin(0);
    uint64_t end = started_at + (uint64_t)(seconds * SECOND), now;
    while ((now = now_ns()) < end) {
        bool sent = false;
        for (int i = 0; i < count; i++) {
            struct connection *publisher = &publishers[i];
            if (publisher->asked - publisher->answers / flush.answers >= depth) continue;
            send_flush(publisher, now);
            sent = true;
        }
        pump(sent ? 0 : 20);
    }
    finish(end);
    run.last_at = now_ns();
    report();
}

static void send_some(uint64_t count) {
    begin(0);
    while (flushes < count) {
        send_flush(&publishers[0], now_ns());
        finish(now_ns());
    }
    report();
}

/* Connections */

static bool all_ready(struct connection *connections, int count) {
    for (int i = 0; i < count; i++)
        if (connections[i].phase < READY) return false;
    return true;
}

static void prepare(struct connection *connection, int index, bool publisher) {
    connection->index = index;
    connection->publisher = publisher;
    connection->next = sequence;
}

/* Open `count` more clients, at most `width` of them in the making at a time. */
static void open_clients(int count, int width, int receive_buffer) {
    uint64_t from = now_ns();
    int first = client_count, opened = 0;
    if (first + count > MAX_CLIENTS) fail("at most %d clients", MAX_CLIENTS);
    while (run.ready < first + count) {
        while (opened < count && opened - (run.ready - first) < width) {
            prepare(&clients[client_count], client_count, false);
            open_connection(&clients[client_count++], receive_buffer);
            opened++;
        }
        pump(20);
        impatient(from, "connects");
    }
    printf("{\"clients\": %d, \"seconds\": %.6f, \"retries\": %lu}\n", run.ready, (double)(now_ns() - from) / SECOND,
           run.retries);
}

static void open_publishers(int count) {
    uint64_t from = now_ns();
    if (publisher_count + count > MAX_PUBLISHERS) fail("at most %d publishers", MAX_PUBLISHERS);
    while (count--) {
        prepare(&publishers[publisher_count], publisher_count, true);
        open_connection(&publishers[publisher_count++], 0);
    }
    while (!all_ready(publishers, publisher_count)) {
        pump(20);
        impatient(from, "publishers");
    }
    printf("{\"publishers\": %d}\n", publisher_count);
}

static void cut(void) {
    for (int i = 0; i < client_count; i++) {
        close_connection(&clients[i]);
        clients[i].asked = 0;
    }
    generation++;
    printf("{\"cut\": %d}\n", client_count);
}

/* Open every client that was cut, all at once, and wait until each has had `goal` events. */
static void come_back(uint64_t goal) {
    begin(goal);
    for (int i = 0; i < client_count; i++) open_connection(&clients[i], 0);
    while (run.done < client_count) {
        pump(20);
        impatient(started_at, "the return");
    }
    memset(run.latency, 0, sizeof run.latency);
    for (int i = 0; i < client_count; i++) note(run.latency, clients[i].done_at - started_at);
    report();
}

static void freeze(int count) {
    for (int i = client_count - count; i < client_count; i++) freeze_connection(&clients[i]);
    printf("{\"clients\": %d}\n", run.ready);
}

static void rest(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * SECOND);
    while (now_ns() < end) pump(20);
    printf("{}\n");
}

void command(char *line) {
    char name[32] = "", path[1024] = "";
    double a = 0, b = 0, c = 0;
    int count = sscanf(line, "%31s %lf %lf %lf", name, &a, &b, &c);
    if (!strcmp(name, "template") && sscanf(line, "%*s %lf %1023[^\n]", &a, path) == 2) load_template(path, (int)a);
    else if (!strcmp(name, "open") && count >= 3) open_clients((int)a, (int)b, (int)c);
    else if (!strcmp(name, "publishers") && count == 2) open_publishers((int)a);
    else if (!strcmp(name, "flood") && count == 3) flood(a, (uint64_t)b);
    else if (!strcmp(name, "pace") && count == 4) pace(a, b, (uint64_t)c);
    else if (!strcmp(name, "publish") && count == 4) publish(a, (uint32_t)b, (int)c);
    else if (!strcmp(name, "send") && count == 2) send_some((uint64_t)a);
    else if (!strcmp(name, "return") && count == 2) come_back((uint64_t)a);
    else if (!strcmp(name, "freeze") && count == 2) freeze((int)a);
    else if (!strcmp(name, "rest") && count == 2) rest(a);
    else if (!strcmp(name, "cut")) cut();
    else fail("not a command: %s", line);
    fflush(stdout);
}

void idle(void) { pump(20); }
