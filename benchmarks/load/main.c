/* load DIALECT PORT STREAM: takes commands on standard input until it ends. */
#include "load.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct settings settings;
struct run run;
struct connection clients[MAX_CLIENTS], publishers[MAX_PUBLISHERS];
int client_count, publisher_count, generation;
uint64_t sequence;

_Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum dialect dialect(const char *name) {
    static const char *const names[] = {"socketio", "steadcast", "recovery", "nats", "jetstream", "mqtt", "raw", "http"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(name, names[i])) return (enum dialect)i;
    fail("not a dialect: %s", name);
}

/* One line at a time, while connections are served; true until the input ends. */
static bool read_line(char *line, size_t room) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (poll(&input, 1, 0) == 0) idle();
    size_t length = 0;
    while (length < room - 1 && read(STDIN_FILENO, line + length, 1) == 1)
        if (line[length++] == '\n') break;
    line[length] = 0;
    return length > 0;
}

int main(int count, char **arguments) {
    char line[2048];
    if (count != 4) fail("usage: load DIALECT PORT STREAM");
    settings = (struct settings){dialect(arguments[1]), atoi(arguments[2]), arguments[3]};
    network_begin();
    while (read_line(line, sizeof line)) command(line);
    return 0;
}
