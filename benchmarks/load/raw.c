/* The floor: a server that does nothing but send(). What one connection sends, every other one gets.
 *
 * A message is 4 bytes of length, then the bytes as they go out: ready websocket frames. There is no
 * handshake, no log, no parsing, and no thought for a client that doesn't read. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 4 << 20, MOST = 20000 };
static int connections[MOST], count;
static char message[ROOM];

static void give_up(const char *what) {
    fprintf(stderr, "raw: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void send_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            poll(&writable, 1, -1);
        } else if (sent < 0) {
            return; /* it has left */
        } else {
            data += sent, length -= (size_t)sent;
        }
    }
}

/* Read one message; false where its sender has left. */
static int receive(int fd, size_t *length) {
    uint32_t size;
    if (recv(fd, &size, 4, MSG_WAITALL) != 4) return 0;
    *length = ntohl(size);
    if (*length > ROOM) give_up("a message that is too large");
    return recv(fd, message, *length, MSG_WAITALL) == (ssize_t)*length;
}

static void spread(int from) {
    size_t length;
    if (receive(from, &length)) {
        for (int i = 0; i < count; i++)
            if (connections[i] != from) send_all(connections[i], message, length);
        return;
    }
    for (int i = 0; i < count; i++)
        if (connections[i] == from) connections[i] = connections[--count];
    close(from);
}

static void take(int poller, int listener) {
    int on = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0 || count == MOST) give_up("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    connections[count++] = fd;
}

int main(int argument_count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
    if (argument_count != 2) return 2;
    address.sin_port = htons((uint16_t)atoi(arguments[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) give_up("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        if (epoll_wait(poller, &event, 1, -1) < 1) continue;
        if (event.data.fd == listener)
            take(poller, listener);
        else
            spread(event.data.fd);
    }
}
