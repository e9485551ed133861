// A link that can be cut: forwards TCP connections of 127.0.0.1 to a port until told to swallow everything, without
// closing anything, as a pulled cable would.
#pragma once
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

namespace satin::test {

class Proxy {
 public:
  explicit Proxy(int target) : target_(target), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    (void)!bind(listener_, reinterpret_cast<sockaddr*>(&address), length);
    (void)!listen(listener_, 64);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Proxy() {
    closing_ = true;
    thread_.join();
    for (const auto& [a, b] : pairs_) {
      close(a);
      close(b);
    }
    close(listener_);
  }
  int port() const { return port_; }
  void cut() { cut_ = true; }

 private:
  static sockaddr_in loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
  }
  void serve() {
    while (!closing_) {
      if (cut_) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        continue;
      }
      std::vector<pollfd> fds{{listener_, POLLIN, 0}};
      for (const auto& [a, b] : pairs_) {
        fds.push_back({a, POLLIN, 0});
        fds.push_back({b, POLLIN, 0});
      }
      if (poll(fds.data(), fds.size(), 5) <= 0) continue;
      for (size_t i = 1; i < fds.size(); ++i)
        if (fds[i].revents) forward(fds[i].fd, fds[i % 2 ? i + 1 : i - 1].fd);
      if (fds[0].revents) connect_through();
    }
  }
  static void forward(int from, int to) {
    char buffer[65536];
    const ssize_t n = read(from, buffer, sizeof buffer);
    if (n <= 0) {
      shutdown(from, SHUT_RDWR);
      shutdown(to, SHUT_RDWR);
      return;
    }
    for (ssize_t done = 0; done < n;) {
      const ssize_t sent = send(to, buffer + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
      if (sent <= 0) return;
      done += sent;
    }
  }
  void connect_through() {
    const int near = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    for (int attempt = 0; attempt < 500; ++attempt) {  // the server may not be there yet
      const int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in address = loopback(target_);
      if (connect(far, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
        pairs_.emplace_back(near, far);
        return;
      }
      close(far);
      usleep(20000);
    }
    close(near);
  }

  int target_, listener_, port_ = 0;
  std::atomic<bool> cut_{false}, closing_{false};
  std::vector<std::pair<int, int>> pairs_;
  std::thread thread_;
};

}  // namespace satin::test
