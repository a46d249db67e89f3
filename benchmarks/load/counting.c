/* Finding marks, checking their order, and keeping times in a histogram with steps of 3 %. */
#include "load.h"

#include <string.h>

static uint64_t digits(const char *text, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value = value * 10 + (uint64_t)(text[i] - '0');
    return value;
}

static int bucket(uint64_t ns) {
    if (ns < 32) return (int)ns;
    int high = 63 - __builtin_clzll(ns);
    return (high - 4) * 32 + (int)((ns >> (high - 5)) & 31);
}

static double bucket_ns(int index) {
    if (index < 32) return index;
    int high = index / 32 + 4;
    return (double)(((uint64_t)(32 + index % 32)) << (high - 5));
}

void note(uint64_t *histogram, uint64_t ns) { histogram[bucket(ns)]++; }

double percentile(const uint64_t *histogram, double share) {
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < 64 * 32; i++) all += histogram[i];
    for (int i = 0; i < 64 * 32; i++) {
        seen += histogram[i];
        if (seen && (double)seen >= share * (double)all) return bucket_ns(i);
    }
    return 0;
}

static void count_one(struct connection *connection, const char *mark, uint64_t now) {
    uint64_t at = digits(mark + 1, TIME_DIGITS);
    uint64_t number = digits(mark + 2 + TIME_DIGITS, SEQ_DIGITS);
    if (number != connection->next) run.disorder++;
    connection->next = number + 1;
    note(run.latency, now > at ? now - at : 0);
    connection->received++;
    if (connection->received == run.goal) {
        connection->done_at = now;
        run.done++;
    }
}

uint32_t count_marks(struct connection *connection, const char *data, size_t length, uint64_t now) {
    uint32_t found = 0;
    const char *end = data + length;
    while ((data = memchr(data, MARK, (size_t)(end - data))) && data + MARK_LENGTH <= end) {
        count_one(connection, data, now);
        data += MARK_LENGTH;
        found++;
    }
    if (found) {
        if (!run.first_at) run.first_at = now;
        run.last_at = now;
        run.events += found;
    }
    return found;
}

void run_reset(uint64_t goal) {
    memset(&run, 0, sizeof run);
    run.goal = goal;
    for (int i = 0; i < client_count; i++) {
        clients[i].received = clients[i].done_at = 0;
        if (clients[i].phase == READY) run.ready++;
    }
}
