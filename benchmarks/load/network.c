/* Connections on one epoll: bytes come into one shared buffer, and only the rest of a frame is copied aside. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_A_TIME = 512, RETRIES = 20000, RETRY_MS = 100 };

static int poller;
static char *shared;
static const size_t shared_room = 2u * RECEIVE + (16u << 20);

void network_begin(void) {
    poller = epoll_create1(0);
    shared = malloc(shared_room);
    if (poller < 0 || !shared) fail("no epoll or no memory");
}

void keep(struct bytes *kept, const char *data, size_t length) {
    if (kept->room < kept->length + length) {
        kept->room = (kept->length + length) * 2;
        kept->data = realloc(kept->data, kept->room);
        if (!kept->data) fail("no memory for %zu bytes", kept->room);
    }
    memcpy(kept->data + kept->length, data, length);
    kept->length += length;
}

static void watch(struct connection *connection, int operation, uint32_t events) {
    struct epoll_event wanted = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &wanted) < 0) fail("epoll: %s", strerror(errno));
}

void open_connection(struct connection *connection, int receive_buffer) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)settings.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) fail("no socket for connection %d: %s", connection->index, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    connection->fd = fd;
    connection->phase = CONNECTING;
    connection->retry_at = 0;
    connection->carry.length = connection->stream.length = connection->out.length = connection->sent = 0;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    watch(connection, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

void close_connection(struct connection *connection) {
    if (connection->phase == CLOSED) return;
    if (connection->phase >= READY && !connection->publisher) run.ready -= connection->phase == READY;
    struct linger at_once = {.l_onoff = 1, .l_linger = 0}; /* a reset, as from a cut, and no TIME_WAIT */
    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection->fd);
    connection->phase = CLOSED;
}

void freeze_connection(struct connection *connection) {
    watch(connection, EPOLL_CTL_MOD, 0);
    connection->phase = FROZEN;
    run.ready--;
}

void refused(struct connection *connection, const char *why) {
    if (connection->phase >= READY) fail("connection %d was closed: %s", connection->index, why);
    if (++run.retries > RETRIES) fail("connection %d is refused for ever: %s", connection->index, why);
    close_connection(connection);
    connection->retry_at = now_ns() + RETRY_MS * 1000000ull;
}

void send_now(struct connection *connection, const char *data, size_t length) {
    ssize_t sent = send(connection->fd, data, length, MSG_NOSIGNAL);
    if (sent == (ssize_t)length) return;
    if (sent < 0 && errno != EAGAIN) {
        refused(connection, strerror(errno));
        return;
    }
    fail("connection %d: a short message did not fit into the socket", connection->index);
}

void send_queued(struct connection *connection, const char *data, size_t length) {
    if (connection->out.length == 0) {
        ssize_t sent = send(connection->fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) fail("publisher: %s", strerror(errno));
        if (sent > 0) data += sent, length -= (size_t)sent;
        if (length) watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    if (length) keep(&connection->out, data, length);
}

static void drain(struct connection *connection) {
    struct bytes *out = &connection->out;
    ssize_t sent = send(connection->fd, out->data + connection->sent, out->length - connection->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) fail("publisher: %s", strerror(errno));
    if (sent > 0) connection->sent += (size_t)sent;
    if (connection->sent < out->length) return;
    out->length = connection->sent = 0;
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
}

static void writable(struct connection *connection) {
    if (connection->phase != CONNECTING) {
        if (connection->out.length) drain(connection);
        return;
    }
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        refused(connection, strerror(error));
        return;
    }
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    dialect_connected(connection);
}

static void readable(struct connection *connection) {
    size_t before = connection->carry.length;
    if (before + RECEIVE > shared_room) fail("a frame of %zu bytes", before);
    memcpy(shared, connection->carry.data ? connection->carry.data : "", before);
    ssize_t got = recv(connection->fd, shared + before, RECEIVE, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        refused(connection, got ? strerror(errno) : "end of stream");
        return;
    }
    connection->carry.length = 0;
    size_t all = before + (size_t)got, taken = dialect_take(connection, shared, all, now_ns());
    if (connection->phase != CLOSED && taken < all) keep(&connection->carry, shared + taken, all - taken);
}

/* Look again and again, and never sleep: to wake a core that sleeps is the sender's work, and a dear one where the
 * core is a virtual one. Those who read over a network are woken by their own machines. */
static int look(struct epoll_event *events, int timeout_ms) {
    uint64_t until = now_ns() + (uint64_t)timeout_ms * 1000000ull;
    int count;
    do {
        count = epoll_wait(poller, events, AT_A_TIME, 0);
    } while (count == 0 && now_ns() < until);
    return count;
}

void turn(int timeout_ms) {
    struct epoll_event events[AT_A_TIME];
    int count = look(events, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection->phase == FROZEN) { /* it reads nothing, not even its own end */
            epoll_ctl(poller, EPOLL_CTL_DEL, connection->fd, NULL);
            continue;
        }
        if (connection->phase != CLOSED && events[i].events & EPOLLOUT) writable(connection);
        if (connection->phase != CLOSED && events[i].events & ~(uint32_t)EPOLLOUT) readable(connection);
    }
}
